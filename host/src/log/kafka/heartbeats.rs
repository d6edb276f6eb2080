//! Whether a member knows what the brokers have told it of its assignment (consumer protocol).
//!
//! What changes is in the answer to one heartbeat, once. librdkafka waits for an answer until the next heartbeat is due, 5 s by default; what comes later it
//! drops. The protocol has a member ask for all of its assignment then; librdkafka 2.12.1 does that after a lost connection, not after a time-out (nor does
//! any later version up to 2.15). The member would keep what it is to give up, or not know what it has got: partitions that nobody reads.
//!
//! It is told in librdkafka's log alone.

/// What of librdkafka's log tells of heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeats {
    #[default]
    Heard,
    /// A request to the group's coordinator has timed out.
    Missed,
    /// An answer has come since, and may go on to tell the whole assignment.
    Answered,
    /// It did not, and the next heartbeat is on its way: what the missed answer said is not told again.
    Lost,
}

impl Heartbeats {
    /// Takes a line of the log into account.
    pub fn logged(&mut self, facility: &str, message: &str) {
        let has = |text: &str| message.contains(text);
        *self = match (facility, *self) {
            // Where others time out, the connection is given up with a heartbeat that may be on it.
            ("REQTMOUT", _) if has("GroupCoordinator") => Self::Missed,
            // All of it, never a part.
            ("HEARTBEAT", _) if has("ConsumerGroupHeartbeat received target assignment") => Self::Heard,
            ("HEARTBEAT", Self::Missed) if has("ConsumerGroupHeartbeat response received") => Self::Answered,
            ("HEARTBEAT", Self::Answered) if has("ConsumerGroupHeartbeat of member id") => Self::Lost,
            (_, unchanged) => unchanged,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSED: (&str, &str) = (
        "REQTMOUT",
        "[thrd:GroupCoordinator]: GroupCoordinator/1: Timed out ConsumerGroupHeartbeatRequest in flight (after 1005ms, timeout #0)",
    );
    const OTHER: (&str, &str) =
        ("REQTMOUT", "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Timed out FetchRequest in flight (after 1005ms, timeout #0)");
    const SENT: (&str, &str) =
        ("HEARTBEAT", "[thrd:main]: GroupCoordinator/1: ConsumerGroupHeartbeat of member id \"a\", group id \"b\", generation id 49");
    const ANSWERED: (&str, &str) = ("HEARTBEAT", "[thrd:main]: ConsumerGroupHeartbeat response received for member id \"a\" with epoch 49");
    const TOLD: (&str, &str) = ("HEARTBEAT", "[thrd:main]: ConsumerGroupHeartbeat received target assignment \"(null)[0]\"");

    fn after(lines: &[(&str, &str)]) -> Heartbeats {
        let mut heartbeats = Heartbeats::default();
        lines.iter().for_each(|(facility, message)| heartbeats.logged(facility, message));
        heartbeats
    }

    #[test]
    fn what_a_missed_answer_said_is_lost_unless_the_next_one_tells_all() {
        assert_eq!(after(&[SENT, ANSWERED, TOLD, SENT, ANSWERED, SENT]), Heartbeats::Heard);
        assert_eq!(after(&[SENT, OTHER, ANSWERED, SENT]), Heartbeats::Heard);
        // As long as nothing is heard, nobody knows.
        assert_eq!(after(&[SENT, MISSED, SENT, MISSED, SENT]), Heartbeats::Missed);
        assert_eq!(after(&[SENT, MISSED, SENT, ANSWERED]), Heartbeats::Answered);
        assert_eq!(after(&[SENT, MISSED, SENT, ANSWERED, SENT]), Heartbeats::Lost);
        assert_eq!(after(&[SENT, MISSED, SENT, ANSWERED, TOLD, SENT, ANSWERED, SENT]), Heartbeats::Heard);
        // After it has joined anew by itself, say.
        assert_eq!(after(&[SENT, MISSED, SENT, ANSWERED, SENT, ANSWERED, TOLD, SENT]), Heartbeats::Heard);
    }
}
