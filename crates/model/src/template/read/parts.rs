//! Parts of a template and of its steps: schemas, events, batches, lifecycles.

use crate::template::batch::BatchConfig;
use crate::template::events::{DeliveryMode, EventCondition, PublishedEvent};
use crate::template::fields::{Given, Reader};
use crate::template::json_schema::JsonSchema;
use crate::template::lifecycle::Lifecycle;
use crate::template::limits::{BATCH_ROWS_MAX, BATCHES_PARALLEL_MAX, EVENTS_MAX, LIFECYCLE_MINUTES_MAX};
use crate::template::problems::{Path, shown};
use crate::template::shape::{BATCH, LIFECYCLE, PUBLISHED_EVENT};
use crate::template::tree::{Content, Node};

impl<'t> Reader<'t, '_> {
    /// A JSON Schema; everything that is wrong with it is told at its own place.
    pub(super) fn schema(&mut self, given: Given<'t>, path: Path<'_>) -> Option<JsonSchema> {
        self.mapping(given, path)?;
        let source = self.tree.to_json(given.node);
        match JsonSchema::compile(source, &mut self.schemas) {
            Ok(schema) => Some(schema),
            Err(faults) => {
                for fault in faults {
                    let at = self.tree.position_of(given.node, &fault.path);
                    let message = format!("`{}` is no usable JSON Schema: {}", given.spelling, fault.message);
                    self.problem_below("bad_schema", at, path, &fault.path, message);
                }
                None
            }
        }
    }

    /// The events that a step publishes: names, or objects.
    pub(super) fn published_events(&mut self, given: Given<'t>, path: Path<'_>) -> Vec<PublishedEvent> {
        let mut events: Vec<PublishedEvent> = Vec::new();
        for (index, item) in self.bounded_list(given, path, EVENTS_MAX).unwrap_or_default().iter().enumerate()
        {
            let node = self.tree.node(*item);
            let path = Path::Item(&path, index);
            let Some(event) = self.published_event(given, node, path) else { continue };
            if events.iter().any(|known| known.name == event.name) {
                let message = format!("the event {} is given twice", shown(&event.name));
                self.problem(
                    "duplicate_event",
                    node.position,
                    path,
                    message,
                    Some("keep one of the two".to_owned()),
                );
            }
            events.push(event);
        }
        events
    }

    fn published_event(&mut self, list: Given<'t>, node: &'t Node, path: Path<'_>) -> Option<PublishedEvent> {
        if matches!(node.content, Content::Text(_)) {
            let name = self.name(Given { node, ..list }, path)?;
            return Some(PublishedEvent {
                name: name.to_owned(),
                description: None,
                condition: EventCondition::default(),
                schema: None,
                delivery_mode: DeliveryMode::default(),
                publisher: None,
            });
        }
        let before = self.problems.count();
        let fields = self.fields(node, path, &PUBLISHED_EVENT)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let name = self.required(&fields, "name", path, &PUBLISHED_EVENT);
        let name = name.and_then(|given| self.name(given, at(given)));
        let description = self.description(&fields, path);
        let condition = match fields.get("condition") {
            Some(given) => self.word(given, at(given), "condition")?,
            None => EventCondition::default(),
        };
        let schema = fields.get("schema").and_then(|given| self.schema(given, at(given)));
        let delivery_mode = match fields.get("delivery_mode") {
            Some(given) => self.word(given, at(given), "delivery mode")?,
            None => DeliveryMode::default(),
        };
        let publisher =
            fields.get("publisher").and_then(|given| self.callable(given, at(given))).map(str::to_owned);
        if self.problems.count() > before {
            return None;
        }
        Some(PublishedEvent {
            name: name?.to_owned(),
            description,
            condition,
            schema,
            delivery_mode,
            publisher,
        })
    }

    /// How rows are split into batches.
    pub(super) fn batch(&mut self, given: Given<'t>, path: Path<'_>) -> Option<BatchConfig> {
        let mut batch = BatchConfig::default();
        let fields = self.fields(given.node, path, &BATCH)?;
        let before = self.problems.count();
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        if let Some(given) = fields.get("batch_size") {
            batch.batch_size = self.count(given, at(given), 1, BATCH_ROWS_MAX)?;
        }
        if let Some(given) = fields.get("parallelism") {
            batch.parallelism = self.count(given, at(given), 1, BATCHES_PARALLEL_MAX)?;
        }
        if let Some(given) = fields.get("max_parallel_batches") {
            batch.max_parallel_batches = self.count(given, at(given), 1, BATCHES_PARALLEL_MAX);
        }
        if let Some(given) = fields.get("cursor_field") {
            batch.cursor_field = self.name(given, at(given)).map(str::to_owned)?;
        }
        if let Some(given) = fields.get("id_field") {
            batch.id_field = self.name(given, at(given)).map(str::to_owned)?;
        }
        if let Some(given) = fields.get("worker_template") {
            batch.worker_template = self.text(given, at(given)).map(str::to_owned);
        }
        if let Some(given) = fields.get("checkpoint_interval") {
            batch.checkpoint_interval = self.count(given, at(given), 1, BATCH_ROWS_MAX);
        }
        if let Some(given) = fields.get("checkpoint_stall_minutes") {
            batch.checkpoint_stall_minutes = self.count(given, at(given), 1, LIFECYCLE_MINUTES_MAX);
        }
        if let Some(given) = fields.get("failure_strategy") {
            batch.failure_strategy = self.word(given, at(given), "failure strategy")?;
        }
        if let (Some(given), Some(max)) = (fields.get("max_parallel_batches"), batch.max_parallel_batches)
            && max < batch.parallelism
        {
            let message =
                format!("`max_parallel_batches`, {max}, is less than `parallelism`, {}", batch.parallelism);
            let help = Some("raise the one, or lower the other".to_owned());
            self.problem("out_of_range", given.node.position, at(given), message, help);
        }
        (self.problems.count() == before).then_some(batch)
    }

    /// How long something may take over its phases.
    pub(super) fn lifecycle(&mut self, given: Given<'t>, path: Path<'_>) -> Option<Lifecycle> {
        let fields = self.fields(given.node, path, &LIFECYCLE)?;
        let before = self.problems.count();
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let mut minutes = |name| {
            let given = fields.get(name)?;
            self.count(given, at(given), 1, LIFECYCLE_MINUTES_MAX)
        };
        let mut lifecycle = Lifecycle {
            max_duration_minutes: minutes("max_duration_minutes"),
            max_waiting_for_dependencies_minutes: minutes("max_waiting_for_dependencies_minutes"),
            max_waiting_for_retry_minutes: minutes("max_waiting_for_retry_minutes"),
            max_steps_in_process_minutes: minutes("max_steps_in_process_minutes"),
            ..Lifecycle::default()
        };
        if let Some(given) = fields.get("staleness_action") {
            lifecycle.staleness_action = self.word(given, at(given), "staleness action")?;
        }
        if let Some(given) = fields.get("auto_fail_on_timeout") {
            lifecycle.auto_fail_on_timeout = self.boolean(given, at(given))?;
        }
        if let Some(given) = fields.get("auto_dlq_on_timeout") {
            lifecycle.auto_dlq_on_timeout = self.boolean(given, at(given))?;
        }
        (self.problems.count() == before).then_some(lifecycle)
    }
}
