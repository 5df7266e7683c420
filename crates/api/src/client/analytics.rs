//! How work went.

use super::call::Call;
use super::{BottlenecksQuery, Client, Result, WindowQuery};
use crate::analytics::{BottleneckReport, FigureExplanation, PerformanceReport};

impl Client {
    /// How work went in a window.
    pub async fn performance(&self, query: &WindowQuery) -> Result<PerformanceReport> {
        self.call(Call::get(&["v1", "analytics", "performance"]).query(query)?).await
    }

    /// What is slow, what fails, and what follows from that.
    pub async fn bottlenecks(&self, query: &BottlenecksQuery) -> Result<BottleneckReport> {
        self.call(Call::get(&["v1", "analytics", "bottlenecks"]).query(query)?).await
    }

    /// Where a figure of the performance report comes from.
    pub async fn explain_figure(&self, figure: &str, query: &WindowQuery) -> Result<FigureExplanation> {
        self.call(Call::get(&["v1", "analytics", "explain", figure]).query(query)?).await
    }
}
