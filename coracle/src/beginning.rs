//! What a machine held before it had applied anything, for the day on which it has to go back to that.

use crate::error::StopReason;
use crate::replicated::SaveState;
use bytes::Bytes;
use coracle_core::LogId;

pub(crate) enum Beginning {
    /// It had applied something when it was started.
    Unknown,
    /// What writes it. Not much, as a rule, and written only when it is wanted.
    Taken(SaveState),
    /// What was written.
    Written(Bytes),
}

impl Beginning {
    /// The state, as a snapshot holds one.
    pub(crate) fn state(&mut self) -> Result<Bytes, StopReason> {
        let failed = |problem: &str| {
            let problem =
                format!("the machine cannot go back to where it began ({problem}): start the node again");
            StopReason::Apply { id: LogId::ZERO, problem }
        };
        let state = match std::mem::replace(self, Beginning::Unknown) {
            Beginning::Unknown => return Err(failed("it had applied something already")),
            Beginning::Written(state) => state,
            Beginning::Taken(save) => {
                let mut state = Vec::new();
                save(&mut state).map_err(|error| failed(&error.to_string()))?;
                Bytes::from(state)
            }
        };
        *self = Beginning::Written(state.clone());
        Ok(state)
    }
}
