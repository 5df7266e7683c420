//! Dead letters.

use super::call::Call;
use super::{Client, LettersQuery, Result};
use crate::letter::{BulkChange, LetterDetails, LetterList};
use crate::letter_request::{LetterWord, NoteLetter, RedriveLetters};

impl Client {
    /// A page of dead letters, newest jobs first.
    pub async fn dead_letters(&self, query: &LettersQuery) -> Result<LetterList> {
        self.call(Call::get(&["v1", "dead-letters"]).query(query)?).await
    }

    /// The newest dead letter of a job.
    pub async fn dead_letter(&self, job: &str) -> Result<LetterDetails> {
        self.call(Call::get(&["v1", "dead-letters", job])).await
    }

    /// Says that somebody looks at it.
    pub async fn investigate_dead_letter(&self, job: &str, word: &LetterWord) -> Result<LetterDetails> {
        self.call(Call::post(&["v1", "dead-letters", job, "investigate"], word)?).await
    }

    /// Declares its job settled.
    pub async fn resolve_dead_letter(&self, job: &str, word: &LetterWord) -> Result<LetterDetails> {
        self.call(Call::post(&["v1", "dead-letters", job, "resolve"], word)?).await
    }

    /// Says that nothing will be done about it.
    pub async fn discard_dead_letter(&self, job: &str, word: &LetterWord) -> Result<LetterDetails> {
        self.call(Call::post(&["v1", "dead-letters", job, "discard"], word)?).await
    }

    /// Adds a note to it.
    pub async fn note_dead_letter(&self, job: &str, note: &NoteLetter) -> Result<LetterDetails> {
        self.call(Call::post(&["v1", "dead-letters", job, "notes"], note)?).await
    }

    /// Puts its job back to the queue.
    pub async fn redrive_dead_letter(&self, job: &str, word: &LetterWord) -> Result<LetterDetails> {
        self.call(Call::post(&["v1", "dead-letters", job, "redrive"], word)?).await
    }

    /// Puts the jobs of some thousands of open dead letters back to the queue; `next` of the answer says that there may be more.
    pub async fn redrive_dead_letters(&self, which: &RedriveLetters) -> Result<BulkChange> {
        self.call(Call::post(&["v1", "dead-letters", "redrive"], which)?).await
    }
}
