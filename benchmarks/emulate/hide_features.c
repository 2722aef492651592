/* Hides from a program what a Haswell does not have, on an x86 that has it: a library to preload.
 *
 * Linux can make CPUID trap (arch_prctl ARCH_CPUID, where /proc/cpuinfo has cpuid_fault). The trap is answered here with
 * the true values less AVX-512, VNNI, AMX and what came with them, so that libraries choose the kernels for AVX2 and run
 * them on the real CPU, at its speed. Instructions that are hidden still work: this shows which kernels compute right,
 * not that a program uses no other instruction.
 *
 * Whoever opens /proc/cpuinfo gets the file that LRAEE_CPUINFO names.
 *
 *     cc -shared -fPIC -O2 -o hide_features.so hide_features.c
 */
#define _GNU_SOURCE
#include <cpuid.h>
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

static int set_faulting(int on) { return (int)syscall(SYS_arch_prctl, ARCH_CPUID, !on); }

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number, (void)info;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  if (code[0] != 0x0f || code[1] != 0xa2) { /* a true fault: let it happen again, unhandled */
    signal(SIGSEGV, SIG_DFL);
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
  registers[REG_RIP] += 2;
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
  if (sigaction(SIGSEGV, &action, NULL) != 0 || set_faulting(1) != 0) {
    fputs("this CPU or kernel cannot make CPUID trap\n", stderr);
    exit(1);
  }
}
