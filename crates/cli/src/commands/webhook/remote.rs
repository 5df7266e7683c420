//! Webhooks of a server: the same verbs, the same output.

use recache_api::client::{Client, DeliveriesQuery};
use recache_api::{CreateWebhook, Redeliver as AskAgain, RotateWebhook};

use super::{StateArgument, Verb, print_deliveries, print_secret, print_subscriber, print_subscribers};
use crate::cli_error::ExitStatus;
use crate::commands::against::{because, ms, no_actor};
use crate::commands::{Context, Outcome};

impl Verb {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Add(add) => {
                let new = CreateWebhook {
                    name: add.name,
                    url: add.url,
                    types: add.events,
                    namespace: add.namespace,
                    timeout_ms: Some(ms(add.timeout)),
                    attempts_max: Some(add.attempts),
                    plain: add.plain,
                    reason: None,
                };
                print_secret(context, &client.create_webhook(&new).await?)
            }
            Self::List(_) => {
                print_subscribers(context, client.webhooks(None).await?.subscribers, "no webhooks")
            }
            Self::Show(one) => print_subscriber(context, &client.webhook(&one.name).await?),
            Self::Remove(one) => {
                client.delete_webhook(&one.name).await?;
                context.note(&format!("webhook `{}` is gone", one.name))?;
                Ok(ExitStatus::Ok)
            }
            Self::Pause(pause) => {
                no_actor(pause.actor.as_deref())?;
                client.pause_webhook(&pause.name, &because(pause.reason)).await?;
                print_subscriber(context, &client.webhook(&pause.name).await?)
            }
            Self::Resume(resume) => {
                no_actor(resume.actor.as_deref())?;
                let because = because("resumed from the command line".to_owned());
                if !client.resume_webhook(&resume.name, &because).await?.changed {
                    context.note(&format!("webhook `{}` was not paused", resume.name))?;
                }
                print_subscriber(context, &client.webhook(&resume.name).await?)
            }
            Self::Rotate(rotate) => {
                let how = RotateWebhook {
                    overlap_seconds: Some(rotate.overlap.as_secs()),
                    // As with a database: who asks for it means it.
                    again: true,
                    reason: None,
                };
                print_secret(context, &client.rotate_webhook(&rotate.name, &how).await?)
            }
            Self::Deliveries(asked) => {
                let state = asked.state.map(|state| match state {
                    StateArgument::Pending => "pending",
                    StateArgument::Delivered => "delivered",
                    StateArgument::Dead => "dead",
                });
                let query = DeliveriesQuery {
                    state: state.map(str::to_owned),
                    event: asked.event.map(|event| event.to_string()),
                    limit: Some(asked.limit),
                    cursor: asked.cursor,
                };
                let found = match &asked.name {
                    Some(name) => client.deliveries(name, &query).await?,
                    None => client.all_deliveries(&query).await?,
                };
                print_deliveries(&found, context)
            }
            Self::Redeliver(again) => {
                let event = again.event.map(|event| event.to_string());
                let asked = AskAgain { event, dead: again.dead, reason: None };
                let done = client.redeliver(&again.name, &asked).await?;
                context.note(&format!("{} to be delivered once more", done.count))?;
                Ok(ExitStatus::Ok)
            }
        }
    }
}
