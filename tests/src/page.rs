//! A scheduler's page of metrics, as a monitoring system reads it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use crate::{Cluster, free_ports};

/// Where a scheduler says its metrics.
#[derive(Clone, Copy, Debug)]
pub struct MetricsPage {
    /// The address that it listens on.
    pub address: SocketAddr,
}

impl MetricsPage {
    /// Starts the scheduler of a cluster anew, with a page.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn of(cluster: &mut Cluster) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports()?.1));
        cluster.kill_scheduler();
        let variable = ("GANTRY_SET_METRICS".to_owned(), address.to_string());
        cluster.set_environment("scheduler", [variable]);
        cluster.start_scheduler()?;
        Ok(Self { address })
    }

    /// The page.
    ///
    /// # Errors
    /// Where it is not answered.
    pub fn read(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.1 200"), "the metrics were answered with {page}");
        Ok(page)
    }

    /// A number of the page, by its name with its labels.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn number(&self, name: &str) -> Result<f64> {
        let page = self.read()?;
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        let found =
            page.lines().find_map(number).with_context(|| format!("no {name} in {page}"))?;
        found.trim().parse().with_context(|| format!("{name} is {found}"))
    }
}
