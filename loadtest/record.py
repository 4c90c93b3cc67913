"""Where results go: JSON always, and on demand JSON and Markdown among the recorded ones."""

import json
import os

import machine
from command import say

RESULTS = os.path.join(machine.ROOT, "loadtest", "results")


def heading(result):
    """Date, commit, machine and versions, as they stand above every result."""
    facts = result["machine"]
    versions = "; ".join(f"{name}: {text}" for name, text in result["versions"].items())
    congestion = facts["sysctls"]["net.ipv4.tcp_congestion_control"]
    return (
        f"{facts['date']}, commit {facts['commit']}. {facts['cpu']}, {facts['cores']} cores,"
        f" kernel {facts['kernel'].split()[0]}, congestion control {congestion}.\n{versions}."
    )


def write(result, sections, path, label, what=""):
    """Into `path`, and recorded under `label`: None = not recorded, empty = the commit."""
    paths = [path]
    if label is not None:
        label = label or result["machine"]["commit"]
        paths.append(_unused(f"{result['machine']['date'][:10]}-{what}{label}", ".json"))
    for one in paths:
        os.makedirs(os.path.dirname(os.path.abspath(one)), exist_ok=True)
        with open(one, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    if label is not None:
        title = f"# Load test {os.path.basename(paths[-1])[:-5]}"
        with open(paths[-1].removesuffix("json") + "md", "w", encoding="utf-8") as file:
            file.write("\n\n".join([title, *sections, *_appendix(result)]) + "\n")
    say("written: " + " ".join(os.path.relpath(one) for one in paths))


def _appendix(result):
    settings = result["machine"]["sysctls"]
    sysctls = "\n".join(f"{key} = {value}" for key, value in settings.items())
    yield f"### System settings\n\n```\n{sysctls}\n```"
    for name, text in result["configurations"].items():
        yield f"### Configuration: {name}\n\n```\n{text.strip()}\n```"


def _unused(stem, ending):
    """A path among the results that does not exist yet; recorded results are never overwritten."""
    number, path = 1, os.path.join(RESULTS, stem + ending)
    while os.path.exists(path):
        number += 1
        path = os.path.join(RESULTS, f"{stem}-{number}{ending}")
    return path
