"""A picture of how many requests each system does, as SVG."""

import math
from html import escape

COLOURS = {"coracle": "#1b6ca8", "etcd": "#c2571a", "redis": "#8a8a8a", "bare": "#b9c6cf"}
WIDTH, BAR, LEFT, RIGHT = 860, 15, 260, 120


def bars(groups):
    """`groups`: for each case its name, and the requests a second of each system, by name. On a logarithmic scale."""
    most = max(number for _, systems in groups for number in systems.values())
    decades = math.ceil(math.log10(most)) - 2
    at = lambda number: LEFT + (WIDTH - LEFT - RIGHT) * max(0, math.log10(max(number, 1)) - 2) / decades
    parts, y = [], 30
    for decade in range(decades + 1):
        x = at(10 ** (decade + 2))
        parts.append(f'<text x="{x:.0f}" y="16" text-anchor="middle" fill="#666">{10 ** (decade + 2):,}</text>')
    for name, systems in groups:
        middle = y + BAR * len(systems) / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for system, number in systems.items():
            end = at(number)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.0f}" height="{BAR - 2}" fill="{COLOURS[system]}"/>')
            parts.append(f'<text x="{end + 5:.0f}" y="{y + BAR - 4}" font-size="11">{escape(system)} {number:,.0f}</text>')
            y += BAR
        y += 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 6}" font-family="sans-serif" font-size="12">'
    ground = f'<rect width="{WIDTH}" height="{y + 6}" fill="#ffffff"/>'
    return "\n".join([head, "<title>Requests a second</title>", ground, *parts, "</svg>"]) + "\n"
