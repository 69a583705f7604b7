//! `deploy` through the binary, against a server that answers as AWS does. `tape.rs` has the protocol, `world.rs` the
//! state. No test waits for real time: the state advances with each request.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

mod agreeing;
mod alarms;
mod artifacts;
mod build_number;
mod causes;
mod company;
mod converge;
mod documents;
mod every_call;
mod failing;
mod failures;
mod front_door;
mod hints;
mod login;
mod losing;
mod model_answers;
mod operator;
mod own_alarms;
mod own_user_data;
mod pairing;
mod permissions;
mod preflight;
mod preview;
mod probe_command;
mod probing;
mod proving;
mod refreshing;
mod replacing;
mod reporting;
mod role;
mod rolling_back;
mod rolling_out;
#[allow(dead_code, reason = "shared with tests/cli")]
#[path = "../cli/sandbox.rs"]
mod sandbox;
mod secrets;
#[allow(dead_code, reason = "shared with tests/cli")]
#[path = "../cli/server.rs"]
mod server;
mod settings;
mod sizes;
mod states;
mod tape;
mod telling_programs;
mod trusted;
mod variables;
mod verbs;
mod visible;
mod weighted_dns;
mod world;
