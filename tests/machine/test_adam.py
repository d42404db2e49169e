"""The training steps of structures and MLPs: torch.optim's, without its imports."""

import subprocess
import sys

import torch

from glai_native.machine.adam import Adam


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (5,), (0, 2))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    ours.append(torch.nn.Parameter(torch.ones(2)))  # gets no gradient, does not move
    optimizers = Adam(ours, 1e-2), torch.optim.Adam(theirs, lr=1e-2, fused=True)
    for _ in range(5):
        for parameters, optimizer in zip((ours[:3], theirs), optimizers, strict=True):
            optimizer.zero_grad()
            sum((p**3).sum() for p in parameters).backward()
            optimizer.step()
    for a, b in zip(ours, theirs, strict=False):
        torch.testing.assert_close(a, b)
    assert torch.equal(ours[3], torch.ones(2))


def test_training_a_structure_does_not_import_the_compiler():
    program = (
        "import sys, torch, glai_native as glai\n"
        "mlp = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))\n"
        "glai.train_structure(mlp, torch.randn(20, 3), torch.arange(20) % 2, progress=False)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
