//! Schedules.

use super::call::Call;
use super::{Client, Result, SchedulesQuery};
use crate::job_request::Because;
use crate::schedule::{ScheduleAnswer, ScheduleList, Ticks};
use crate::schedule_request::DefineSchedule;

impl Client {
    /// Schedules by namespace and name.
    pub async fn schedules(&self, query: &SchedulesQuery) -> Result<ScheduleList> {
        self.call(Call::get(&["v1", "schedules"]).query(query)?).await
    }

    /// A schedule.
    pub async fn schedule(&self, namespace: &str, name: &str) -> Result<ScheduleAnswer> {
        self.call(Call::get(&["v1", "schedules", namespace, name])).await
    }

    /// Adds a schedule, or changes the one of this name.
    pub async fn define_schedule(
        &self,
        namespace: &str,
        name: &str,
        schedule: &DefineSchedule,
    ) -> Result<ScheduleAnswer> {
        self.call(Call::put(&["v1", "schedules", namespace, name], schedule)?).await
    }

    /// Lets ticks lead to nothing.
    pub async fn pause_schedule(&self, namespace: &str, name: &str, why: &Because) -> Result<ScheduleAnswer> {
        self.call(Call::post(&["v1", "schedules", namespace, name, "pause"], why)?).await
    }

    /// Ends a pause.
    pub async fn resume_schedule(
        &self,
        namespace: &str,
        name: &str,
        why: &Because,
    ) -> Result<ScheduleAnswer> {
        self.call(Call::post(&["v1", "schedules", namespace, name, "resume"], why)?).await
    }

    /// Makes a job now, besides the ticks.
    pub async fn run_schedule(&self, namespace: &str, name: &str, why: &Because) -> Result<ScheduleAnswer> {
        self.call(Call::post(&["v1", "schedules", namespace, name, "run"], why)?).await
    }

    /// Deletes a schedule; its jobs stay.
    pub async fn delete_schedule(
        &self,
        namespace: &str,
        name: &str,
        why: &Because,
    ) -> Result<ScheduleAnswer> {
        self.call(Call::delete(&["v1", "schedules", namespace, name]).query(why)?).await
    }

    /// When a schedule ticks next.
    pub async fn ticks(&self, namespace: &str, name: &str, count: u16) -> Result<Ticks> {
        let query = serde_json::json!({ "count": count });
        self.call(Call::get(&["v1", "schedules", namespace, name, "ticks"]).query(&query)?).await
    }

    /// When a schedule with this expression would tick.
    pub async fn ticks_of_cron(&self, cron: &str, zone: &str, count: u16) -> Result<Ticks> {
        let query = serde_json::json!({ "cron": cron, "zone": zone, "count": count });
        self.call(Call::get(&["v1", "ticks"]).query(&query)?).await
    }
}
