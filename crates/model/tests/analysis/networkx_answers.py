"""Writes random acyclic graphs with networkx's answers, one JSON document a line.

    python3 crates/model/tests/analysis/networkx_answers.py > crates/model/tests/analysis/networkx.jsonl

A number behind it is another seed, and other graphs: `cargo xtask graphs --seed S` compares with those.
Fields: d, what each step depends on; w, how many seconds each runs; l, the weight of the heaviest path; g, the
level of each step. Written with networkx 3.6.1 and Python 3.11.
"""

import json
import random
import sys

import networkx as nx

random.seed(int(sys.argv[1]) if len(sys.argv) > 1 else 20261126)
for _ in range(500):
    steps = random.randint(1, 24)
    density = random.choice([0.05, 0.15, 0.4])
    names = list(range(steps))
    random.shuffle(names)
    depends = [[] for _ in range(steps)]
    for later in range(steps):
        for earlier in range(later):
            if random.random() < density:
                depends[names[later]].append(names[earlier])
    weights = [random.randint(0, 50) for _ in range(steps)]
    # networkx weighs edges: a step's weight is on the edges that leave it, towards one end of all.
    graph = nx.DiGraph()
    graph.add_nodes_from(range(steps))
    for step, before in enumerate(depends):
        graph.add_weighted_edges_from((one, step, weights[one]) for one in before)
    levels = {step: level for level, row in enumerate(nx.topological_generations(graph)) for step in row}
    graph.add_weighted_edges_from((step, "end", weights[step]) for step in range(steps))
    print(json.dumps({
        "d": depends,
        "w": weights,
        "l": nx.dag_longest_path_length(graph, weight="weight"),
        "g": [levels[step] for step in range(steps)],
    }, separators=(",", ":")))
