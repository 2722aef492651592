/* Hides from a program what a Haswell does not have, on an x86 that has it: a library to preload.
 *
 * Linux can make CPUID trap (arch_prctl ARCH_CPUID, where /proc/cpuinfo has cpuid_fault). The trap is answered here with
 * the true values less AVX-512, VNNI, AMX and what came with them, so that libraries choose the kernels for AVX2 and run
 * them on the real CPU, at its speed. Instructions that are hidden still work: this shows which kernels compute right,
 * not that a program uses no other instruction.
 *
 * Whoever opens /proc/cpuinfo gets the file that LRAEE_CPUINFO names.
 *
 * The trap comes as SIGSEGV. A program may set a handler of its own for true faults (Python's faulthandler, which pytest
 * turns on, does): it is kept, and runs when one happens, but the trap's handler stays.
 *
 *     cc -shared -fPIC -O2 -o hide_features.so hide_features.c -ldl
 *
 * hidden_features.py builds it and runs a command with it.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012

/* Leaf 7.0, after Intel's Software Developer's Manual, volume 2A, CPUID. */
#define KEPT_7_0_EBX (1u << 0 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 8 | 1u << 9 | 1u << 10) /* up to AVX2, BMI2 */

static struct sigaction wanted = {.sa_handler = SIG_DFL}; /* what the program asked for on SIGSEGV */
static volatile sig_atomic_t handed_over;                 /* a true fault has happened: SIGSEGV is the program's own */

static int true_sigaction(int number, const struct sigaction *new_action, struct sigaction *old_action) {
  int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
  return next(number, new_action, old_action);
}

int sigaction(int number, const struct sigaction *new_action, struct sigaction *old_action) {
  if (number != SIGSEGV || handed_over) return true_sigaction(number, new_action, old_action);
  struct sigaction before = wanted;
  if (new_action != NULL) wanted = *new_action;
  if (old_action != NULL) *old_action = before;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
  if (number != SIGSEGV || handed_over) {
    sighandler_t (*next)(int, sighandler_t) = dlsym(RTLD_NEXT, "signal");
    return next(number, handler);
  }
  sighandler_t before = wanted.sa_handler;
  wanted = (struct sigaction){.sa_handler = handler, .sa_flags = SA_RESTART};
  return before;
}

#ifdef TRAP_ON_HLT /* for tests where CPUID cannot trap: HLT faults in every program, and is answered as CPUID is */
static const unsigned char trapped[] = {0xf4};
static int set_faulting(int on) { return (void)on, 0; }
#else
static const unsigned char trapped[] = {0x0f, 0xa2};
static int set_faulting(int on) { return (int)syscall(SYS_arch_prctl, ARCH_CPUID, !on); }
#endif

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  if (info->si_code != SI_KERNEL || memcmp(code, trapped, sizeof trapped) != 0) {
    handed_over = 1;
    true_sigaction(signal_number, &wanted, NULL); /* a true fault: it happens again, for the program's own handler */
    return;
  }
  unsigned leaf = (unsigned)registers[REG_RAX], subleaf = (unsigned)registers[REG_RCX];
  unsigned eax, ebx, ecx, edx;
  set_faulting(0);
  __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
  set_faulting(1);
  if (leaf == 7) {
    eax = 0; /* no further subleaves: AVX-VNNI is in 7.1 */
    ebx = subleaf == 0 ? ebx & KEPT_7_0_EBX : 0;
    ecx = 0; /* AVX512-VNNI */
    edx = 0; /* AMX */
  } else if (leaf == 0xd && subleaf == 0) {
    eax &= 7; /* state of x87, SSE, AVX */
    edx = 0;
  }
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += sizeof trapped;
}

static const char *redirected(const char *path) {
  const char *other = getenv("LRAEE_CPUINFO");
  return other != NULL && strcmp(path, "/proc/cpuinfo") == 0 ? other : path;
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return (int)syscall(SYS_openat, AT_FDCWD, redirected(path), flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return (int)syscall(SYS_openat, AT_FDCWD, redirected(path), flags, mode);
}

__attribute__((constructor)) static void hide(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigemptyset(&action.sa_mask);
  if (true_sigaction(SIGSEGV, &action, NULL) != 0 || set_faulting(1) != 0) {
    fputs("this CPU or kernel cannot make CPUID trap\n", stderr);
    exit(1);
  }
}
