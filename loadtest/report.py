"""From slices to what a person reads: tables, ratios, figures reached or missed.

Medians over the rounds; a ratio is ours / theirs within one round, and its median is what counts,
with the quartiles in brackets. Tables are Markdown that also reads well on a terminal.
"""

import statistics
from dataclasses import asdict

from cases import CASES, IDLE, figures


def costs(case):
    """{metric: value of a slice} for the two costs, in µs per request or ms per GB."""
    scale = 1e6 if case.per_gigabyte else 1e3
    return {
        "cpu": lambda one: one.cpu_ns / scale / one.work(case),
        "busy": lambda one: one.busy_ns / scale / one.work(case),
    }


class Report:
    def __init__(self, proxies):
        self.kinds = {proxy.name: proxy.kind for proxy in proxies}
        # The floor is no rival: nothing is better than it.
        self.floor = [name for name in self.kinds if name == "floor"]
        self.tries = [name for name, kind in self.kinds.items()
                      if kind == "floor" and name != "floor"]
        self.rivals = [name for name, kind in self.kinds.items() if kind not in ("ringway", "floor")]
        ours = [name for name, kind in self.kinds.items() if kind == "ringway"]
        self.ours = ours or self.rivals[-1:] or self.floor
        self.plain = {proxy.name: (proxy.plain, proxy.variant.against) for proxy in proxies
                      if proxy.kind == "ringway" and proxy.plain != proxy.name}
        self.figures = []  # every figure judged, for the last table and the JSON

    def compared_with(self, name):
        """The rivals and the floor, and for a second Ringway the first; for a variant the one that is
        none."""
        if name in self.plain:
            return [self.plain[name][0]]
        if name in self.tries:
            return self.floor
        return [rival for rival in [*self.rivals, *self.floor, self.ours[0]] if rival != name]

    def case(self, case, table):
        cost, user = costs(case), lambda one: one.user_share * costs(case)["cpu"](one)
        unit = case.unit
        rows = [[
            "proxy", "req/s", f"cpu {unit}", "user", "system", f"core busy {unit}",
            "p50 µs", "p99", "p99.9", "backend conns", "load core",
        ]]
        present = [name for name in self.kinds if name in table.rounds[0]]
        for name in present:
            total, in_user = table.median(name, cost["cpu"]), table.median(name, user)
            rows.append([
                name, f"{table.median(name, lambda one: one.rps):,.0f}", number(total),
                number(in_user), number(total - in_user),
                number(table.median(name, cost["busy"])),
                *(f"{table.median(name, pick):,.0f}" for pick in PERCENTILES),
                f"{table.median(name, lambda one: one.backend_connections):,.0f}",
                f"{table.median(name, lambda one: one.load_core_busy):.0%}",
            ])
        ratios = [["ours / theirs", "cpu", "core busy", "req/s", "p99"]]
        for name in [name for name in [*self.ours, *self.tries] if name in present]:
            for rival in [rival for rival in self.compared_with(name) if rival in present]:
                values = [cost["cpu"], cost["busy"], lambda one: one.rps, lambda one: one.p99]
                spread = [quartiles(table.ratios(name, [rival], value)) for value in values]
                ratios.append([f"{name} / {rival}", *spread])
        for figure in figures(case.name):
            self._judge(figure, table, cost)
        return "\n\n".join([heading(case.name, case.says, table), grid(rows), grid(ratios)])

    def steady(self, table, share, rate):
        rows = [["proxy", "req/s", "p50 µs", "p99", "p99.9", "loader late p99"]]
        for name in self.kinds:
            rows.append([
                name, f"{table.median(name, lambda one: one.rps):,.0f}",
                *(f"{table.median(name, pick):,.0f}" for pick in PERCENTILES),
                f"{table.median(name, lambda one: one.late_p99):,.0f}",
            ])
        ratios = [["ours / theirs", "p50", "p99", "p99.9"]]
        for name in self.ours:
            for rival in self.compared_with(name):
                spread = [quartiles(table.ratios(name, [rival], pick)) for pick in PERCENTILES]
                ratios.append([f"{name} / {rival}", *spread])
        for figure in figures(table.name):
            self._judge(figure, table, {"p99": lambda one: one.p99})
        says = f"128 B at a constant {rate:,.0f} requests/s, {share} of the slower rival's capacity"
        return "\n\n".join([heading(table.name, says, table), grid(rows), grid(ratios)])

    def idle(self, measured, case=IDLE):
        rows = [["proxy", "connections", "idle, bytes each", "after all at once", "more than TLS",
                 "before, MiB"]]
        for name, one in measured.items():
            burst = f"{one['burst']:,.0f}" if "burst" in one else "-"
            over = f"{one['over']:,.0f}" if "over" in one else "-"
            rows.append([
                name, f"{one['connections']:,}", f"{one['idle']:,.0f}", burst, over,
                f"{one['idle_base'] / 2**20:.1f}",
            ])
        for figure in figures(case):
            for name in self.ours:
                if self.kinds[name] == "ringway" and name in measured:
                    value = measured[name][figure.metric]
                    if figure.rival not in measured and figure.rival:
                        continue
                    if figure.rival:
                        value /= measured[figure.rival][figure.metric]
                    self._add(name, figure, value, {})
        return f"### {case}: resident memory of an idle keep-alive connection\n\n{grid(rows)}"

    def _judge(self, figure, table, values):
        for name in self.ours:
            rivals = self._rivals_of(name, figure)
            if self.kinds[name] != "ringway" or not rivals:
                continue
            found = {
                metric: statistics.median(table.ratios(name, rivals, value))
                for metric, value in values.items()
            }
            self._add(name, figure, found[figure.metric], found, table.kept_disturbed)

    def _rivals_of(self, name, figure):
        """The rivals that a figure compares one of ours with; a variant only with the plain one."""
        if name in self.plain:
            plain, against = self.plain[name]
            return [plain] if figure.rival == against else []
        return [rival for rival in [*self.rivals, *self.floor]
                if figure.rival == rival or figure.rival == "best" and rival in self.rivals]

    def _add(self, name, figure, value, found, disturbed=0):
        """`reached` asks for the figure's own metric; where the core disagrees it is said."""
        verdict = "reached" if value <= figure.limit else "missed"
        busy = found.get("busy", 0)
        if verdict == "reached" and busy > figure.limit:
            verdict = f"reached (by cpu; core busy {busy:.2f})"
        if disturbed:
            verdict += ", but disturbed"
        self.figures.append({"proxy": name, **asdict(figure), "value": value, "verdict": verdict})

    def summary(self):
        if not self.figures:
            return "No figure was judged (that needs Ringway and a rival)."
        rows = [["proxy", "case", "what", "against", "measured", "at most", ""]]
        for one in self.figures:
            show = "{:.2f}" if one["rival"] else "{:,.0f} B"
            against = {"best": "the better rival"}.get(one["rival"], one["rival"])
            rows.append([
                one["proxy"], one["case"], one["metric"], against,
                show.format(one["value"]), show.format(one["limit"]), one["verdict"],
            ])
        return f"### Figures\n\n{grid(rows)}"


PERCENTILES = [lambda one: one.p50, lambda one: one.p99, lambda one: one.p999]
SAYS = {case.name: case.says for case in CASES}


def heading(name, says, table):
    foot = f"{len(table.rounds)} rounds"
    if table.repeated:
        foot += f", {table.repeated} disturbed slices repeated"
    if table.kept_disturbed:
        foot += f", **{table.kept_disturbed} kept although disturbed: do not trust this table**"
    return f"### {name}: {says}\n\n{foot}"


def quartiles(values):
    """Median, with the quartiles in brackets."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def number(value):
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def grid(rows):
    """A Markdown table; the first column to the left, all others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])
