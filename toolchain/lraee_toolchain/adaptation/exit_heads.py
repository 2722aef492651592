"""Exit heads that learn together with the trunk: they are what the exits of the export start from.

A head is an attention head as the exits have them (`lraee_exporters.graphs.pooling.token_pool`): each token is
normalized, a few learned queries read weighted means, the mean patch and the class token stand beside them, and an MLP
follows, ``LayerNorm -> Linear -> GELU -> Linear -> unit length``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from lraee_exporters.graphs.pooling.token_pool import QUERIES, TOKEN_EPSILON, pooled_rows
from lraee_toolchain.adaptation.lessons import TuningTask
from lraee_toolchain.early_exit.heads import EPSILON
from lraee_toolchain.early_exit.task import Head
from lraee_toolchain.early_exit.token_heads.reading import read_tokens
from lraee_toolchain.early_exit.token_heads.saved import arrays_of, head_of


class ExitHead(torch.nn.Module):
    """One head, in float32."""

    def __init__(self, width: int, embed_dim: int, *, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token
        self.queries = torch.nn.Parameter(torch.empty(width, QUERIES))
        read = pooled_rows(QUERIES, class_token=class_token) * width
        self.norm = torch.nn.LayerNorm(read, eps=EPSILON)
        self.fc1 = torch.nn.Linear(read, width)
        self.fc2 = torch.nn.Linear(width, embed_dim)

    def forward(self, tokens: torch.Tensor, sizes: torch.Tensor | None = None) -> torch.Tensor:
        """Embed tokens (images, tokens, width) as (images, embed_dim) float32 unit rows.

        Args:
            tokens: that the block gives.
            sizes: (images, tokens) float32, how many tokens each stands for; None where each stands for itself.
        """
        normed = F.layer_norm(tokens.float(), tokens.shape[-1:], eps=TOKEN_EPSILON)
        read = read_tokens(normed, [self.queries], class_token=self.class_token, sizes=sizes)
        return F.normalize(self.fc2(F.gelu(self.fc1(self.norm(read)))), dim=-1)

    def start(self, generator: torch.Generator) -> None:
        """Draw initial weights as torch's layers do, from a generator of the CPU."""
        with torch.no_grad():
            self.queries.normal_(std=self.queries.shape[0] ** -0.5, generator=generator)
            for linear in (self.fc1, self.fc2):
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-bound, bound, generator=generator)


def build_heads(task: TuningTask, width: int, *, class_token: bool) -> torch.nn.ModuleList:
    """Build one head for each exit: those that the task starts from, else new ones.

    Args:
        task: exits, heads, and the seed of new ones.
        width: of the tokens.
        class_token: whether token 0 is a class token.
    """
    generator = torch.Generator().manual_seed(task.seed)
    heads = torch.nn.ModuleList()
    for block in task.exits:
        head = ExitHead(width, task.labels.shape[1], class_token=class_token)
        if (learned := task.heads.get(block)) is None:
            head.start(generator)
        else:
            head.load_state_dict({name: torch.tensor(array) for name, array in arrays_of(learned).items()})
        heads.append(head)
    return heads


def as_heads(modules: Mapping[int, torch.nn.Module]) -> dict[int, Head]:
    """Give what was learned, by block, as the exits have it."""
    return {
        block: head_of({name: value.detach().cpu().numpy() for name, value in module.state_dict().items()})
        for block, module in modules.items()
    }
