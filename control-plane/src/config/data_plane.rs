//! The `data_plane:` section.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_common::limit::{LONGEST_IPV6_PREFIX, Rate};
use portcullis_common::opening::IkePorts;
use portcullis_data_plane::config::{
    Classification, DataPlaneConfig, Idle, InterfaceConfig, Mode, OpeningLimits, Role,
};
use portcullis_data_plane::packet::{DontFragment, TunnelOptions};
use portcullis_esp::{EchoKind, EchoSubTypes};

use super::field::{Field, Section};
use super::scalar::interface_name;

/// Most packets a second, and at once, that a limit can be.
const HIGHEST_RATE: u32 = 1_000_000;
/// Packets that busy polling takes from a card at once: the kernel's own budget, and the most that is of use.
const BUSY_POLL_BUDGET: u16 = 64;
const HIGHEST_BUDGET: u16 = 1024;
/// Ticks a second of a kernel that has the fewest.
const SLOWEST_TICKS: u32 = 100;

/// Reads the section; `None` if it is missing or has no usable interface.
pub fn data_plane(
    field: Field<'_>,
    instance: &str,
    state_dir: &Path,
    ports: IkePorts,
) -> Option<DataPlaneConfig> {
    field.section(|s| section(s, instance, state_dir, ports))
}

fn section(
    s: &mut Section<'_>,
    instance: &str,
    state_dir: &Path,
    ports: IkePorts,
) -> Option<DataPlaneConfig> {
    let modes = [("auto", Mode::Auto), ("xdp", Mode::Xdp), ("tun", Mode::Tun)];
    let mode = s.or("mode", Mode::Auto, |field| field.word(&modes));
    let classifications =
        [("auto", Classification::Auto), ("on", Classification::On), ("off", Classification::Off)];
    let classification = s.or("xdp", Classification::Auto, |field| {
        let word = field.word(&classifications)?;
        if word == Classification::Off && mode == Mode::Xdp {
            return field.refuse("mode xdp needs XDP on every interface");
        }
        Some(word)
    });
    let offloads = s.or("offloads", true, Field::flag);
    let waits = [
        ("sleep", Idle::Sleep),
        ("spin", Idle::Spin),
        ("busy_poll", Idle::BusyPoll { budget: BUSY_POLL_BUDGET }),
    ];
    let idle = s.or("idle", Idle::Sleep, |field| {
        let idle = field.word(&waits)?;
        if matches!(idle, Idle::BusyPoll { .. }) && mode == Mode::Tun {
            return field.refuse("mode tun has no queue of a card to poll");
        }
        Some(idle)
    });
    let idle = match s.get("busy_poll_budget") {
        None => idle,
        Some(field) => match (idle, field.number(1, HIGHEST_BUDGET)) {
            (Idle::BusyPoll { .. }, Some(budget)) => Idle::BusyPoll { budget },
            (_, Some(_)) => field.refuse("only `idle: busy_poll` has a budget").unwrap_or(idle),
            (_, None) => idle,
        },
    };
    let workers = s.or("workers", 1, |field| field.number(1, 64));
    let balance = s.or("balance", true, Field::flag);
    let sa_slots = s.or("sa_slots", 65_536, |field| field.number(256, 1 << 20));
    let replay_window = s.or("replay_window", 4096, |field| {
        field.number(64, 65_536).and_then(|window: u32| {
            if window.is_multiple_of(64) {
                Some(window)
            } else {
                field.refuse("the window is a multiple of 64 packets")
            }
        })
    });
    let xdp_object = s.get("xdp_object").and_then(|field| field.text().map(PathBuf::from));
    let tun = s.get("tun").and_then(|field| field.read(|text| interface_name(text).map(Arc::from)));
    let tunnel = s.get("tunnel").and_then(|field| field.section(tunnel)).unwrap_or_default();
    let echo = s.get("echo").and_then(|field| field.section(self::echo)).unwrap_or_default();
    let limits = s.get("xdp_limits").and_then(|field| field.section(limits)).unwrap_or_default();
    let interfaces = interfaces(&s.need("interfaces")?)?;
    Some(DataPlaneConfig {
        instance: Arc::from(instance),
        state_dir: state_dir.to_owned(),
        mode,
        classification,
        offloads,
        idle,
        workers,
        balance,
        interfaces,
        xdp_object,
        sa_slots,
        tun: tun.unwrap_or_else(|| default_tun(instance)),
        replay_window,
        tunnel,
        echo,
        limits: OpeningLimits { ports, ..limits },
    })
}

/// AGGFRAG sub-types of ESP echo, until IANA has assigned them.
fn echo(s: &mut Section<'_>) -> Option<EchoSubTypes> {
    let default = EchoSubTypes::DEFAULT;
    let request = s.or("request", default.number(EchoKind::Request), |field| field.number(0, 255));
    let reply = s.or("reply", default.number(EchoKind::Reply), |field| field.number(0, 255));
    EchoSubTypes::new(request, reply).map_or_else(|error| s.refuse(error), Some)
}

/// What XDP lets in of what may begin an IKE SA.
fn limits(s: &mut Section<'_>) -> Option<OpeningLimits> {
    let default = OpeningLimits::default();
    let mut rate = |name, default| s.or(name, default, |field| field.section(self::rate));
    let init = rate("ike_sa_init", default.init);
    let init_with_cookie = rate("ike_sa_init_with_cookie", default.init_with_cookie);
    let syn = rate("tcp_syn", default.syn);
    Some(OpeningLimits {
        init,
        init_with_cookie,
        syn,
        ipv4_prefix: s.or("ipv4_prefix", default.ipv4_prefix, |field| field.number(8, 32)),
        ipv6_prefix: s.or("ipv6_prefix", default.ipv6_prefix, |field| field.number(16, LONGEST_IPV6_PREFIX)),
        ports: default.ports,
    })
}

/// `per_second: 0` is no limit.
fn rate(s: &mut Section<'_>) -> Option<Rate> {
    let per_second = s.or("per_second", OpeningLimits::PER_SECOND, |field| field.number(0, HIGHEST_RATE));
    let burst = s.or("burst", OpeningLimits::BURST.max(per_second), |field| field.number(1, HIGHEST_RATE));
    // The clock of the programs goes on by ticks, of which a kernel has 100 a second at least.
    if burst < per_second / SLOWEST_TICKS {
        return s.refuse(format!("burst is at least a {SLOWEST_TICKS}th of per_second"));
    }
    Some(Rate::new(per_second, burst))
}

/// What outer headers take from inner ones (RFC 4301 sections 5.1.2 and 8.1).
fn tunnel(s: &mut Section<'_>) -> Option<TunnelOptions> {
    let default = TunnelOptions::default();
    let fragments =
        [("copy", DontFragment::Copy), ("set", DontFragment::Set), ("clear", DontFragment::Clear)];
    Some(TunnelOptions {
        copy_dscp: s.or("copy_dscp", default.copy_dscp, Field::flag),
        dont_fragment: s.or("dont_fragment", default.dont_fragment, |field| field.word(&fragments)),
    })
}

/// Device names have 15 octets at most; long instance names are told apart by a hash.
fn default_tun(instance: &str) -> Arc<str> {
    let plain = format!("pc-{instance}");
    match interface_name(&plain) {
        Ok(name) => Arc::from(name),
        Err(_) => {
            let hash = instance
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
            Arc::from(format!("pc-{hash:08x}"))
        }
    }
}

fn interfaces(field: &Field<'_>) -> Option<Vec<InterfaceConfig>> {
    let roles = [("wan", Role::Wan), ("lan", Role::Lan)];
    let mut interfaces = Vec::new();
    for (name, entry) in field.entries() {
        if let Err(message) = interface_name(name) {
            entry.refuse::<()>(message);
            continue;
        }
        let interface = entry.section(|s| {
            let role = s.need("role")?.word(&roles)?;
            let protected = s.or("protected", false, Field::flag);
            if protected && role == Role::Wan {
                return s
                    .refuse("protected belongs to a lan interface: from a wan side only ESP and IKE count");
            }
            Some(InterfaceConfig { name: Arc::from(name), role, protected })
        });
        interfaces.extend(interface);
    }
    if !interfaces.iter().any(|interface| interface.role == Role::Wan) {
        return field.refuse("an interface with role wan is needed: ESP and IKE arrive there");
    }
    Some(interfaces)
}
