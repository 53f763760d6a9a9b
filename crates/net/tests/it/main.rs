//! The client against servers on 127.0.0.1.

mod http;
mod proxy;
mod tls;
mod trust;

use std::time::Duration;

use zuwai_net::{Net, Settings};

/// No long waits.
fn settings() -> Settings {
    let mut settings = Settings::new("zuwai-test");
    settings.backoff = Duration::from_millis(2);
    settings.idle_timeout = Duration::from_secs(5);
    settings
}

fn net(settings: Settings) -> Net {
    Net::new(settings).unwrap()
}
