"""LGViT's exits: heads that mix neighbouring patches after shallow blocks, heads that pool all tokens after deep ones.

The paper exits after every block of the second two thirds of the tower, by confidence. It trains in two stages: trunk
and exits together, then the exits alone on the finished trunk, with distillation. The second stage is how every head
is trained here. The first is ``--adapt``, so that on a tuned trunk this is the whole method, and on a trunk as given
its heads alone. Its heads for deep blocks are the attention pooling of this project.

Source: G. Xu et al., LGViT: Dynamic Early Exiting for Accelerating Vision Transformer, arXiv 2308.00255.
"""

from __future__ import annotations

from collections.abc import Sequence

from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.early_exit.exits import TrainedExit, train_exits
from lraee_toolchain.early_exit.task import ExitTask, Material


def lgvit_reads(blocks: Sequence[int]) -> dict[int, HeadInput]:
    """Say what the head after each block reads: ``local`` in the first half of `blocks`, else ``attention``.

    >>> lgvit_reads([4, 5, 6, 7])
    {4: 'local', 5: 'local', 6: 'attention', 7: 'attention'}
    """
    ordered = sorted(blocks)
    return {block: "local" if 2 * place < len(ordered) else "attention" for place, block in enumerate(ordered)}


def lgvit_exits(
    task: ExitTask, heads: Material, gating: Material, blocks: Sequence[int], trained: Sequence[TrainedExit] = ()
) -> list[TrainedExit]:
    """Train the exits after `blocks`, by rising block.

    Args:
        task: labels and options.
        heads: images that heads learn from, with all tokens after these blocks.
        gating: images that temperatures and gates are fitted on.
        blocks: where the exits stand.
        trained: exits of the same task and images; those that read what LGViT's do are taken from here.
    """
    wanted = lgvit_reads(blocks)
    found = {there.block: there for there in trained if wanted.get(there.block) == there.head.reads}
    for reads in sorted(set(wanted.values())):
        missing = [block for block in wanted if wanted[block] == reads and block not in found]
        if missing:
            found |= {made.block: made for made in train_exits(task, heads, gating, missing, reads=reads)}
    return [found[block] for block in wanted]
