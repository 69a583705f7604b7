//! Why machines failed, in their own words: their signals and their consoles.

use serde_json::{Value, json};

use super::fleet::{self, UNKNOWN_MACHINE};
use crate::{
    aws::refusal::Refusal,
    error::{self, Class},
    notify::block::{self, Block},
    system::System,
};

/// What a console says about a failure.
enum ConsoleWords {
    /// The block of a failed run.
    Block(Box<Block>),
    /// The last line of user-data that could not download this program.
    Line(String),
    /// The reason why the console cannot be read.
    Unreadable(String),
}

/// A machine that failed.
pub(super) struct FailedMachine {
    /// The instance's id.
    pub(super) id: String,
    /// What its signal says: the step, or the kind of the failure. Empty without a signal.
    signal: String,
    words: Option<ConsoleWords>,
}

impl FailedMachine {
    /// Returns a machine whose console was not read yet.
    pub(super) fn new(id: &str, signal: &str) -> Self {
        Self { id: id.to_owned(), signal: signal.trim().to_owned(), words: None }
    }

    /// Returns whether its console has been read.
    pub(super) fn is_explained(&self) -> bool {
        self.words.is_some()
    }

    /// Reads its console. Returns false if that does not show the failure yet.
    pub(super) fn read_console(&mut self, system: &System) -> bool {
        let console = fleet::console(system, &self.id);
        self.words = match console.as_ref().map(|console| (Block::find(console), block::of_user_data(console))) {
            Ok((Some(block), _)) => Some(ConsoleWords::Block(Box::new(block))),
            Ok((None, Some(line))) => Some(ConsoleWords::Line(line)),
            Ok((None, None)) => None,
            Err(error) if error::class(error) == Class::Transient => None,
            Err(error) if Refusal::of(error).is_some_and(|refusal| refusal.code == UNKNOWN_MACHINE) => {
                Some(ConsoleWords::Unreadable(format!("EC2 no longer knows machine {}", self.id)))
            }
            Err(error) => {
                Some(ConsoleWords::Unreadable(format!("the console of {} cannot be read: {error:#}", self.id)))
            }
        };
        self.is_explained()
    }

    fn block(&self) -> Option<&Block> {
        match &self.words {
            Some(ConsoleWords::Block(block)) => Some(block),
            _ => None,
        }
    }

    /// Returns the failure in one line: `machine i-0123 failed: step start_servers, service app`.
    pub(super) fn headline(&self) -> String {
        let step = self.block().and_then(|block| block.step.as_ref()).map(|step| format!("step {step}"));
        let resource = self.block().and_then(|block| block.resource.clone());
        let place: Vec<String> = step.into_iter().chain(resource).collect();
        let what = match &self.words {
            Some(ConsoleWords::Line(line)) => line.clone(),
            _ if !place.is_empty() => place.join(", "),
            _ if !self.signal.is_empty() => self.signal.clone(),
            _ => "it has not signalled".to_owned(),
        };
        format!("machine {} failed: {what}", self.id)
    }

    /// Returns the causes below the headline, the outermost first.
    pub(super) fn causes(&self) -> Vec<String> {
        self.block().map_or_else(Vec::new, |block| block.error.iter().chain(&block.causes).cloned().collect())
    }

    /// Returns the next thing to do.
    pub(super) fn hint(&self) -> Option<&str> {
        self.block()?.hint.as_deref()
    }

    /// Returns what the console says, for a person. `account` has the flags that choose the account.
    pub(super) fn console_text(&self, account: &str) -> String {
        match &self.words {
            Some(ConsoleWords::Block(block)) => block.to_string(),
            Some(ConsoleWords::Line(line)) => format!("{}: {line}", self.id),
            Some(ConsoleWords::Unreadable(why)) => why.clone(),
            None => {
                let again = format!("to look again: aws ec2 get-console-output --instance-id {}{account}", self.id);
                format!("{}: its console output shows no failure yet; {again}", self.id)
            }
        }
    }

    /// Returns it for a program.
    pub(super) fn json(&self, account: &str) -> Value {
        let block = self.block();
        json!({
            "machine": self.id,
            "console": self.console_text(account),
            "signal": self.signal,
            "step": block.and_then(|block| block.step.as_ref()),
            "resource": block.and_then(|block| block.resource.as_ref()),
            "causes": self.causes(),
            "hint": self.hint(),
        })
    }
}

/// Makes one error of sentences, the outermost first.
pub(super) fn chain(sentences: impl DoubleEndedIterator<Item = String>) -> Option<anyhow::Error> {
    let wrap = |inner: Option<anyhow::Error>, sentence: String| {
        Some(match inner {
            None => anyhow::Error::msg(sentence),
            Some(inner) => inner.context(sentence),
        })
    };
    sentences.rev().fold(None, wrap)
}
