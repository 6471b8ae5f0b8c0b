//! The topology: host-a — gw-a — router — gw-b — host-b, and a third site behind the router where one is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::instance::Instance;
use crate::netns::{Namespace, join};

/// One end of the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The end of gw-a and host-a, which initiates.
    A,
    /// The end of gw-b and host-b.
    B,
}

/// Address translation on the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// None: IP protocol 50 passes end to end.
    None,
    /// gw-a is behind a translator: what it sends arrives at gw-b from the router's address.
    BeforeA,
    /// gw-b is behind a translator: gw-a reaches it at the router's address, on the ports of IKE.
    BeforeB,
}

/// The five namespaces with their links, addresses and routes.
///
/// Inner networks are `10.1.0.0/16` and `2001:db8:a1::/64` behind gw-a, `10.2.0.0/16` and `2001:db8:b2::/64`
/// behind gw-b. Fields drop in order, the instance last.
#[derive(Debug)]
pub struct Lab {
    /// Host behind gw-a.
    pub host_a: Namespace,
    /// The gateway that initiates.
    pub gw_a: Namespace,
    /// Between the gateways.
    pub router: Namespace,
    /// The gateway that responds.
    pub gw_b: Namespace,
    /// Host behind gw-b.
    pub host_b: Namespace,
    /// The name and the directory of all this.
    pub instance: Instance,
}

impl Lab {
    /// Builds the topology.
    ///
    /// # Errors
    /// Without root, or if `ip`, `nft` or `ethtool` is missing or refuses.
    pub fn new(nat: Nat) -> Result<Self> {
        Self::with_queues(nat, 1)
    }

    /// Builds the topology with several queues in each direction of every link.
    ///
    /// # Errors
    /// As those of [`Lab::new`].
    pub fn with_queues(nat: Nat, queues: u32) -> Result<Self> {
        let instance = Instance::new()?;
        let lab = Self {
            host_a: Namespace::new(&instance, "host-a")?,
            gw_a: Namespace::new(&instance, "gw-a")?,
            router: Namespace::new(&instance, "router")?,
            gw_b: Namespace::new(&instance, "gw-b")?,
            host_b: Namespace::new(&instance, "host-b")?,
            instance,
        };
        lab.link(queues)?;
        lab.address()?;
        lab.route()?;
        match nat {
            Nat::None => {}
            Nat::BeforeA => lab.router.nft(
                "add table ip lab; \
                 add chain ip lab after { type nat hook postrouting priority srcnat; }; \
                 add rule ip lab after iifname wan-a oifname wan-b masquerade",
            )?,
            Nat::BeforeB => {
                let (outside, inside) = (Side::A.router().0, Side::B.wan().0);
                let forward = |protocol: &str| {
                    format!(
                        "add rule ip lab before ip daddr {outside} {protocol} dport {{ 500, 4500 }} dnat to {inside};"
                    )
                };
                lab.router.nft(&format!(
                    "add table ip lab; \
                     add chain ip lab before {{ type nat hook prerouting priority dstnat; }}; {}{}",
                    forward("udp"),
                    forward("tcp"),
                ))?;
            }
        }
        Ok(lab)
    }

    /// The namespace of a gateway.
    pub fn gateway(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.gw_a,
            Side::B => &self.gw_b,
        }
    }

    /// The namespace of a host.
    pub fn host(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.host_a,
            Side::B => &self.host_b,
        }
    }

    /// Leaves everything in place, and returns the name that [`Instance::remove`] takes.
    ///
    /// # Errors
    /// Those of [`Instance::keep`].
    pub fn keep(self) -> Result<String> {
        let name = self.instance.name().to_owned();
        self.instance.keep()?;
        for namespace in [self.host_a, self.gw_a, self.router, self.gw_b, self.host_b] {
            namespace.keep();
        }
        Ok(name)
    }

    /// Adds the third site behind the router.
    ///
    /// # Errors
    /// As those of [`Lab::new`].
    pub fn third_site(&self) -> Result<ThirdSite> {
        let site = ThirdSite {
            host: Namespace::new(&self.instance, "host-c")?,
            gateway: Namespace::new(&self.instance, "gw-c")?,
        };
        join(&site.gateway, "lan0", &site.host, "eth0", 1)?;
        join(&site.gateway, "wan0", &self.router, "wan-c", 1)?;
        receive_redirected(&[(&site.host, "eth0"), (&self.router, "wan-c")])?;
        site.host.add_address("eth0", ThirdSite::HOST.into(), 24)?;
        site.gateway.add_address("lan0", ThirdSite::LAN.into(), 24)?;
        site.gateway.add_address("wan0", ThirdSite::WAN.into(), 24)?;
        self.router.add_address("wan-c", ThirdSite::ROUTER.into(), 24)?;
        site.gateway.sysctl("ipv4/ip_forward", "1")?;
        site.host.add_route("default", ThirdSite::LAN.into())?;
        site.gateway.add_route("default", ThirdSite::ROUTER.into())?;
        self.router.add_route(ThirdSite::INNER, ThirdSite::WAN.into())?;
        Ok(site)
    }

    fn link(&self, queues: u32) -> Result<()> {
        join(&self.gw_a, "lan0", &self.host_a, "eth0", queues)?;
        join(&self.gw_a, "wan0", &self.router, "wan-a", queues)?;
        join(&self.gw_b, "wan0", &self.router, "wan-b", queues)?;
        join(&self.gw_b, "lan0", &self.host_b, "eth0", queues)?;
        receive_redirected(&[
            (&self.host_a, "eth0"),
            (&self.router, "wan-a"),
            (&self.router, "wan-b"),
            (&self.host_b, "eth0"),
        ])
    }

    fn address(&self) -> Result<()> {
        for (namespace, interface, addresses) in [
            (&self.host_a, "eth0", Side::A.host()),
            (&self.gw_a, "lan0", Side::A.lan()),
            (&self.gw_a, "wan0", Side::A.wan()),
            (&self.router, "wan-a", Side::A.router()),
            (&self.router, "wan-b", Side::B.router()),
            (&self.gw_b, "wan0", Side::B.wan()),
            (&self.gw_b, "lan0", Side::B.lan()),
            (&self.host_b, "eth0", Side::B.host()),
        ] {
            let (v4, v6) = addresses;
            namespace.add_address(interface, v4.into(), 24)?;
            namespace.add_address(interface, v6.into(), 64)?;
        }
        Ok(())
    }

    fn route(&self) -> Result<()> {
        for namespace in [&self.gw_a, &self.router, &self.gw_b] {
            namespace.sysctl("ipv4/ip_forward", "1")?;
            namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        for side in [Side::A, Side::B] {
            let (lan_v4, lan_v6) = side.lan();
            self.host(side).add_route("default", lan_v4.into())?;
            self.host(side).add_route("default", lan_v6.into())?;
            let (router_v4, router_v6) = side.router();
            self.gateway(side).add_route("default", router_v4.into())?;
            self.gateway(side).add_route("default", router_v6.into())?;
            let (wan_v4, wan_v6) = side.wan();
            let [inner_v4, inner_v6] = side.inner();
            self.router.add_route(inner_v4, wan_v4.into())?;
            self.router.add_route(inner_v6, wan_v6.into())?;
        }
        Ok(())
    }
}

/// A third site: host-c — gw-c, IPv4 only. Drop it before its [`Lab`].
#[derive(Debug)]
pub struct ThirdSite {
    /// Host behind gw-c.
    pub host: Namespace,
    /// Its gateway.
    pub gateway: Namespace,
}

impl ThirdSite {
    /// The host's address.
    pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 2);
    /// The gateway's address towards its host.
    pub const LAN: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
    /// The gateway's address towards the router.
    pub const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
    /// The router's address towards the gateway.
    pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// The inner network behind the gateway.
    pub const INNER: &str = "10.3.0.0/16";
}

/// A redirect into a veth whose peer has neither XDP nor GRO loses every packet.
fn receive_redirected(interfaces: &[(&Namespace, &str)]) -> Result<()> {
    interfaces.iter().try_for_each(|(namespace, interface)| {
        namespace.run("ethtool", &["-K", interface, "gro", "on"]).map(drop)
    })
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `gw-a` or `gw-b`.
    pub fn gateway_name(self) -> &'static str {
        match self {
            Self::A => "gw-a",
            Self::B => "gw-b",
        }
    }

    /// The host's addresses.
    pub fn host(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Self::A => (Ipv4Addr::new(10, 1, 0, 2), Ipv6Addr::new(0x2001, 0xdb8, 0xa1, 0, 0, 0, 0, 2)),
            Self::B => (Ipv4Addr::new(10, 2, 0, 2), Ipv6Addr::new(0x2001, 0xdb8, 0xb2, 0, 0, 0, 0, 2)),
        }
    }

    /// The gateway's addresses towards its host.
    pub fn lan(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Self::A => (Ipv4Addr::new(10, 1, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xa1, 0, 0, 0, 0, 1)),
            Self::B => (Ipv4Addr::new(10, 2, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xb2, 0, 0, 0, 0, 1)),
        }
    }

    /// The gateway's addresses towards the router.
    pub fn wan(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Self::A => (Ipv4Addr::new(192, 0, 2, 2), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2)),
            Self::B => (Ipv4Addr::new(198, 51, 100, 2), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2)),
        }
    }

    /// The router's addresses towards the gateway.
    pub fn router(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Self::A => (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
            Self::B => (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1)),
        }
    }

    /// The inner networks behind the gateway, IPv4 and IPv6.
    pub fn inner(self) -> [&'static str; 2] {
        match self {
            Self::A => ["10.1.0.0/16", "2001:db8:a1::/64"],
            Self::B => ["10.2.0.0/16", "2001:db8:b2::/64"],
        }
    }
}

/// First address and prefix length of every inner network: no packet of theirs may cross the router in clear.
pub fn inner_prefixes() -> Vec<(IpAddr, u8)> {
    vec![
        (Ipv4Addr::new(10, 1, 0, 0).into(), 16),
        (Ipv4Addr::new(10, 2, 0, 0).into(), 16),
        (Ipv4Addr::new(10, 3, 0, 0).into(), 16),
        (Ipv6Addr::new(0x2001, 0xdb8, 0xa1, 0, 0, 0, 0, 0).into(), 64),
        (Ipv6Addr::new(0x2001, 0xdb8, 0xb2, 0, 0, 0, 0, 0).into(), 64),
    ]
}
