//! log_contract
