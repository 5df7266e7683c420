//! How handlers hang together, drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use recache_api::{HandlerEdge, HandlerGraph};
use recache_model::template::draw::mermaid_label;

/// For people: each handler with what follows it.
pub fn handler_text(graph: &HandlerGraph) -> String {
    let mut edges: BTreeMap<(&str, &str), Vec<&HandlerEdge>> = BTreeMap::new();
    for edge in &graph.edges {
        edges.entry((&edge.namespace, &edge.before)).or_default().push(edge);
    }
    let mut text = String::new();
    for node in &graph.nodes {
        let unserved = if node.is_served { "" } else { "  (no worker)" };
        let _ = writeln!(text, "{}/{}{unserved}", visible(&node.namespace), visible(&node.name));
        for edge in edges.get(&(node.namespace.as_str(), node.name.as_str())).into_iter().flatten() {
            let _ =
                writeln!(text, "  -> {} in {}", visible(&edge.after), visible(&edge.templates.join(", ")));
        }
    }
    text
}

/// For Mermaid: a subgraph for each namespace; dashed is what no worker offers.
pub fn handler_mermaid(graph: &HandlerGraph) -> String {
    let mut numbers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut text = "flowchart LR\n".to_owned();
    let mut namespace: Option<&str> = None;
    for (number, node) in graph.nodes.iter().enumerate() {
        if namespace != Some(&node.namespace) {
            if namespace.is_some() {
                text.push_str("  end\n");
            }
            let _ = writeln!(text, "  subgraph n{number}[\"{}\"]", mermaid_label(&node.namespace));
            namespace = Some(&node.namespace);
        }
        numbers.insert((&node.namespace, &node.name), number);
        let class = if node.is_served { "" } else { ":::unserved" };
        let _ = writeln!(text, "    h{number}[\"{}\"]{class}", mermaid_label(&node.name));
    }
    if namespace.is_some() {
        text.push_str("  end\n");
    }
    for edge in &graph.edges {
        let of = edge.namespace.as_str();
        let number = |name: &str| numbers.get(&(of, name)).copied();
        if let (Some(before), Some(after)) = (number(&edge.before), number(&edge.after)) {
            let _ = writeln!(text, "  h{before} --> h{after}");
        }
    }
    text.push_str("  classDef unserved stroke-dasharray: 4 4\n");
    text
}

fn visible(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use recache_api::{HandlerNode, Instant};

    use super::*;

    fn graph() -> HandlerGraph {
        let node = |name: &str, is_served| HandlerNode {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            is_served,
        };
        HandlerGraph {
            schema: HandlerGraph::SCHEMA.to_owned(),
            calculated_at: Instant::from_micros(0).unwrap(),
            nodes: vec![node("charge", true), node("say \"\n", false)],
            edges: vec![HandlerEdge {
                namespace: "shop".to_owned(),
                before: "charge".to_owned(),
                after: "say \"\n".to_owned(),
                templates: vec!["order".to_owned()],
            }],
        }
    }

    #[test]
    fn names_cannot_end_a_line_or_a_label() {
        assert_eq!(
            handler_text(&graph()),
            "shop/charge\n  -> say \"\u{fffd} in order\nshop/say \"\u{fffd}  (no worker)\n"
        );
        assert_eq!(
            handler_mermaid(&graph()),
            "flowchart LR\n  subgraph n0[\"shop\"]\n    h0[\"charge\"]\n    h1[\"say #34;#10;\"]:::unserved\n  end\n  \
             h0 --> h1\n  classDef unserved stroke-dasharray: 4 4\n"
        );
    }
}
