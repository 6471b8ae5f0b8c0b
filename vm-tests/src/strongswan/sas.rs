//! What `swanctl --list-sas --pretty` says.

use anyhow::{Context, Result, bail};

use super::settings::Settings;

/// An IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSa {
    /// The name of its connection.
    pub connection: String,
    /// `ESTABLISHED` once it is up.
    pub state: String,
    /// strongSwan is the original initiator.
    pub is_initiator: bool,
    /// SPIs of initiator and responder, hexadecimal.
    pub spis: (String, String),
    /// Everything that was said about it.
    pub details: Settings,
    /// Its Child SAs.
    pub children: Vec<ChildSa>,
}

/// A Child SA pair.
#[derive(Clone, Debug)]
pub struct ChildSa {
    /// The name of the child.
    pub name: String,
    /// `INSTALLED` while it carries traffic.
    pub state: String,
    /// SPIs, inbound and outbound, hexadecimal.
    pub spis: (String, String),
    /// Packets opened and sealed.
    pub packets: (u64, u64),
    /// Everything that was said about it.
    pub details: Settings,
}

impl IkeSa {
    /// The Child SA of this name that is in use. One that was rekeyed stays for some seconds beside it.
    pub fn installed(&self, name: &str) -> Option<&ChildSa> {
        self.children.iter().find(|child| child.name == name && child.state == "INSTALLED")
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<IkeSa>> {
    let mut lines = text.lines().map(str::trim);
    let mut sas = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("list-sa event {") {
            let event = section(&mut lines)?;
            sas.extend(event.sections().map(|(name, sa)| ike_sa(name, sa)).collect::<Result<Vec<_>>>()?);
        }
    }
    Ok(sas)
}

/// What follows an opening brace, up to the one that closes it.
fn section<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Settings> {
    let mut settings = Settings::default();
    while let Some(line) = lines.next() {
        if line == "}" {
            return Ok(settings);
        } else if let Some(name) = line.strip_suffix(" {") {
            *settings.section(name) = section(lines)?;
        } else if let Some(key) = line.strip_suffix(" = [") {
            let items: Vec<_> = lines.by_ref().take_while(|line| *line != "]").collect();
            settings.set(key, items.join(" "));
        } else if let Some((key, value)) = line.split_once(" = ") {
            settings.set(key, value);
        }
    }
    bail!("swanctl stopped in the middle of a section")
}

fn ike_sa(name: &str, sa: &Settings) -> Result<IkeSa> {
    let text = |key: &str| text(sa, key);
    let children = sa.sections().find(|(name, _)| *name == "child-sas").map(|(_, children)| children);
    let children = children.into_iter().flat_map(Settings::sections).map(|(_, child)| child_sa(child));
    Ok(IkeSa {
        connection: name.to_owned(),
        state: text("state")?,
        is_initiator: sa.text("initiator") == Some("yes"),
        spis: (text("initiator-spi")?, text("responder-spi")?),
        details: sa.clone(),
        children: children.collect::<Result<_>>()?,
    })
}

fn child_sa(sa: &Settings) -> Result<ChildSa> {
    let count = |key: &str| sa.text(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    let spi = |key: &str| sa.text(key).unwrap_or_default().to_owned();
    Ok(ChildSa {
        name: text(sa, "name")?,
        state: text(sa, "state")?,
        spis: (spi("spi-in"), spi("spi-out")),
        packets: (count("packets-in"), count("packets-out")),
        details: sa.clone(),
    })
}

fn text(sa: &Settings, key: &str) -> Result<String> {
    sa.text(key).map(str::to_owned).with_context(|| format!("no {key} in {sa}"))
}
