//! Why machines failed, in their own words: their signals, their objects in the bucket, and their consoles.

use serde_json::{Value, json};

use super::{
    failure::MachineObjects,
    fleet::{self, UNKNOWN_MACHINE},
};
use crate::{
    aws::refusal::Refusal,
    error::{self, Class},
    notify::block::{self, Block},
    system::System,
};

/// What a machine says about its failure.
enum MachineWords {
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
    words: Option<MachineWords>,
    /// The reason why its object in the bucket cannot be read.
    unread: Option<String>,
}

impl FailedMachine {
    /// Returns a machine whose words were not read yet.
    pub(super) fn new(id: &str, signal: &str) -> Self {
        Self { id: id.to_owned(), signal: signal.trim().to_owned(), words: None, unread: None }
    }

    /// Returns whether its words have been read.
    pub(super) fn is_explained(&self) -> bool {
        self.words.is_some()
    }

    /// Reads its object in the bucket, or else its console. Returns false if neither shows the failure yet.
    pub(super) fn read_words(&mut self, system: &System, blocks: Option<&MachineObjects>) -> bool {
        let block = blocks.map_or(Ok(None), |blocks| blocks.read(system, &self.id));
        self.unread = block.as_ref().err().map(|error| format!("{error:#}"));
        // A refusal is certain: without the permission to list the bucket, S3 refuses a missing object, too.
        let is_certain = block.as_ref().err().is_none_or(|error| error::class(error) != Class::Transient);
        self.words = match block {
            Ok(Some(block)) => Some(MachineWords::Block(Box::new(block))),
            // A bucket that did not answer may still tell more than a console that cannot be read.
            _ => self.console_words(system).filter(|words| is_certain || !matches!(words, MachineWords::Unreadable(_))),
        };
        self.is_explained()
    }

    fn console_words(&self, system: &System) -> Option<MachineWords> {
        let console = fleet::console(system, &self.id);
        match console.as_ref().map(|console| (Block::find(console), block::of_user_data(console))) {
            Ok((Some(block), _)) => Some(MachineWords::Block(Box::new(block))),
            Ok((None, Some(line))) => Some(MachineWords::Line(line)),
            Ok((None, None)) => None,
            Err(error) if error::class(error) == Class::Transient => None,
            Err(error) if Refusal::of(error).is_some_and(|refusal| refusal.code == UNKNOWN_MACHINE) => {
                Some(MachineWords::Unreadable(format!("EC2 no longer knows machine {}", self.id)))
            }
            Err(error) => {
                Some(MachineWords::Unreadable(format!("the console of {} cannot be read: {error:#}", self.id)))
            }
        }
    }

    fn block(&self) -> Option<&Block> {
        match &self.words {
            Some(MachineWords::Block(block)) => Some(block),
            _ => None,
        }
    }

    /// Returns the failure in one line: `machine i-0123 failed: step start_servers, service app`.
    pub(super) fn headline(&self) -> String {
        let step = self.block().and_then(|block| block.step.as_ref()).map(|step| format!("step {step}"));
        let resource = self.block().and_then(|block| block.resource.clone());
        let place: Vec<String> = step.into_iter().chain(resource).collect();
        let what = match &self.words {
            Some(MachineWords::Line(line)) => line.clone(),
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

    /// Returns what it says, for a person. `account` has the flags that choose the account.
    pub(super) fn text(&self, account: &str) -> String {
        match &self.words {
            Some(MachineWords::Block(block)) => block.to_string(),
            Some(MachineWords::Line(line)) => format!("{}: {line}", self.id),
            Some(MachineWords::Unreadable(why)) => why.clone(),
            None => {
                let again = format!("to look again: aws ec2 get-console-output --instance-id {}{account}", self.id);
                let unread = self.unread.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
                format!("{}: its console output shows no failure yet; {again}{unread}", self.id)
            }
        }
    }

    /// Returns it for a program.
    pub(super) fn json(&self, account: &str) -> Value {
        let block = self.block();
        json!({
            "machine": self.id,
            "console": self.text(account),
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
