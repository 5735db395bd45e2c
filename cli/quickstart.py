"""`featcache quickstart`: the main job, offline, on embedded data and real weights."""

from __future__ import annotations

import time

import typer

from featcache.cli.console import Bar, CacheOption, DebugOption, JsonOption, handled, print_json

NEXT = """\
Next, your own images: a folder with one sub-folder per class.
  featcache extract --backbone efficientnet_lite0 --dataset imagefolder:DIR
  featcache probe --task knn --backbone efficientnet_lite0 --dataset imagefolder:DIR
  featcache report
More backbones: featcache ls backbones     All you have: featcache ls features"""


@handled
def quickstart(
    cache: CacheOption = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Rank four backbones on two embedded datasets, offline, in minutes.

    Example: featcache quickstart
    """
    from featcache.cli.report import board_json, show
    from featcache.quickstart import run
    from featcache.store.cache import Cache
    from featcache.verbs.report import leaderboard

    began = time.perf_counter()
    results = []
    progress = Bar()
    for step in run(cache, progress):
        if step.result is not None:
            results.append(step.result)
        else:
            rows = sum(one.computed for one in step.extracted)
            seconds = sum(one.seconds for one in step.extracted)
            said = f"{rows} images in {seconds:.1f} s" if rows else "already there"
            progress.note(f"extracted {step.name}: {said}")
    board = leaderboard(results)
    root = Cache(cache).root
    if as_json:
        print_json({**board_json(board), "cache": str(root)})
        return
    show(board, title=f"{len(results)} results in {time.perf_counter() - began:.0f} s")
    typer.echo(f"\nFeatures: {root / 'features'}\nResults:  {root / 'results'}\n\n{NEXT}")
