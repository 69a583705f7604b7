//! What machines have uploaded: how their last run ended, and the block of its failure. It is there within a second, also
//! where EC2 shows no console yet.

use std::time::Duration;

use anyhow::Result;

use super::{Deploy, artifacts::Store, parameters::Parameter, stack::Stack};
use crate::{
    aws::instance_object::{InstanceObjects, instance_arn},
    notify::block::Block,
    system::System,
};

/// The most bytes of an object that are read. A block and the line below it have less than 4 KiB.
const MAX_OBJECT_BYTES: usize = 64 << 10;
/// How long one look waits for an object.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The objects of the machines of one stack.
pub(super) struct MachineObjects {
    objects: InstanceObjects,
    /// Partition, region and account of the machines.
    place: [String; 3],
}

impl MachineObjects {
    /// Returns those of a stack; `None` if it has no bucket.
    pub(super) fn of(deploy: &Deploy, stack: &Stack) -> Option<Self> {
        let named = [Parameter::ArtifactBucket, Parameter::ArtifactPrefix].map(|name| stack.parameter(name.name()));
        // A stack that was rolled back has lost the parameters of the first build with a bucket.
        let store = match named {
            ["", _] | [_, ""] => Store::of(&deploy.settings, &deploy.stack)?,
            [bucket, prefix] => Store { bucket: bucket.to_owned(), prefix: prefix.to_owned() },
        };
        let mut arn = stack.id.split(':').skip(1).map(str::to_owned);
        let (partition, _, region, account) = (arn.next()?, arn.next()?, arn.next()?, arn.next()?);
        Some(Self { objects: store.failures()?, place: [partition, region, account] })
    }

    /// Returns the block of a machine, which may have written any text; `None` if there is none yet.
    ///
    /// # Errors
    /// If the bucket does not answer in time, or the operator may not read the object.
    pub(super) fn read(&self, system: &System, machine: &str) -> Result<Option<Block>> {
        Ok(self.text(system, machine)?.and_then(|text| Block::find(&text)))
    }

    /// Returns the object of a machine, which may have written any text; `None` if there is none yet.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub(super) fn text(&self, system: &System, machine: &str) -> Result<Option<String>> {
        let [partition, region, account] = &self.place;
        let arn = instance_arn(partition, region, account, machine);
        let limits = (MAX_OBJECT_BYTES, READ_TIMEOUT);
        let object = system.aws.object_of_instance(&system.host, &self.objects, &arn, limits)?;
        Ok(object.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
