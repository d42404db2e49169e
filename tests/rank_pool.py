"""Processes that run a test's functions as the ranks of one gloo group."""

import datetime
import traceback

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SECONDS = 120  # after which a call counts as hung


class RankPool:
    """Started once, since importing torch takes longer than what is tested."""

    def __init__(self, size, file):
        context = mp.get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(rank, size, str(file), theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()

    def run(self, function, *arguments):
        """What ``function(*arguments)`` returned on each rank, or the ValueError and the like that it raised."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        results = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(SECONDS), f"rank {rank} hangs in {function.__name__}"
            result, text = pipe.recv()
            assert not text, text
            results.append(result)
        return results

    def close(self):
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(5)
            process.kill()


def _serve(rank, size, file, pipe):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{file}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            dist.destroy_process_group()
            return
        try:
            pipe.send((function(*arguments), ""))
        except (ValueError, TypeError, RuntimeError, FloatingPointError) as error:
            pipe.send((error, ""))
        except BaseException:
            pipe.send((None, traceback.format_exc()))
