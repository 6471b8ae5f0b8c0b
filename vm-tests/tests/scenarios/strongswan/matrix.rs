//! What can be agreed on with strongSwan, case by case and in either role, on one pair of daemons that both reload.

use std::net::IpAddr;
use std::path::Path;

use portcullis_vm_tests::status::IkeSaStatus;
use portcullis_vm_tests::strongswan::{IkeSa, Settings};
use portcullis_vm_tests::{DaemonConfig, Ping, Side, write_secret};

use super::{CHILD, OURS, Scene, THEIRS, life};
use crate::SOON;

/// One combination: `ike` and `esp` are proposals as both ends write them.
struct Case {
    name: &'static str,
    ike: &'static str,
    esp: &'static str,
    /// The gateways meet over IPv6.
    over_ipv6: bool,
    /// What else gw-a's connection has: YAML by path. `PPK_FILE` stands for a file with the PPK of both ends.
    ours: &'static [(&'static str, &'static str)],
    /// What else strongSwan's connection has.
    theirs: &'static [(&'static str, &'static str)],
    /// Who initiates, each in turn.
    initiators: &'static [Side],
    /// What our status has to say of the IKE SA.
    is: fn(&IkeSaStatus) -> bool,
}

const USUAL: Case = Case {
    name: "",
    ike: "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
    esp: "aes256gcm16",
    over_ipv6: false,
    ours: &[],
    theirs: &[],
    initiators: &[Side::A, Side::B],
    is: |sa| !sa.ppk,
};

/// The PPK_ID of the PPK that both ends have.
const PPK_ID: &str = "shared";
const PPK_OF_THEIRS: (&str, &str) = ("ppk_id", PPK_ID);

const CASES: &[Case] = &[
    Case { name: "the default", ..USUAL },
    Case { name: "x25519", ike: "aes256gcm16-prfsha384-x25519", ..USUAL },
    Case { name: "ecp256", ike: "aes128gcm16-prfsha256-ecp256", esp: "aes128gcm16", ..USUAL },
    Case { name: "ecp384", ike: "aes256gcm16-prfsha384-ecp384", ..USUAL },
    Case {
        name: "ChaCha20-Poly1305",
        ike: "chacha20poly1305-prfsha256-x25519",
        esp: "chacha20poly1305",
        ..USUAL
    },
    Case { name: "ML-KEM-512", ike: "aes128gcm16-prfsha256-x25519-ke1_mlkem512", ..USUAL },
    Case { name: "ML-KEM-1024, fragments", ike: "aes256gcm16-prfsha384-ecp384-ke1_mlkem1024", ..USUAL },
    Case {
        name: "two additional key exchanges",
        ike: "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp384",
        ..USUAL
    },
    Case { name: "child with a key exchange", esp: "aes256gcm16-x25519", ..USUAL },
    Case { name: "child with ML-KEM", esp: "aes256gcm16-x25519-ke1_mlkem768", ..USUAL },
    Case {
        name: "child with two additional key exchanges",
        esp: "aes256gcm16-x25519-ke1_mlkem768-ke2_ecp384",
        ..USUAL
    },
    Case { name: "over IPv6", over_ipv6: true, ..USUAL },
    Case {
        name: "childless",
        esp: "aes256gcm16-x25519",
        ours: &[("ike/first_child", "childless")],
        theirs: &[("childless", "force")],
        ..USUAL
    },
    Case {
        name: "additional key exchanges behind authentication",
        ours: &[("ike/first_child", "after-rekey")],
        // Without them as well.
        theirs: &[("proposals", "aes256gcm16-prfsha384-x25519-ke1_none-ke1_mlkem768")],
        initiators: &[Side::A],
        ..USUAL
    },
    Case {
        name: "PPK, required by both",
        ours: &[("ppk", "{ id: shared, secret_file: PPK_FILE }")],
        theirs: &[PPK_OF_THEIRS, ("ppk_required", "yes")],
        is: |sa| sa.ppk,
        ..USUAL
    },
    Case {
        name: "PPK, optional",
        ike: "aes256gcm16-prfsha384-x25519",
        ours: &[("ppk", "{ id: shared, secret_file: PPK_FILE, required: false }")],
        theirs: &[PPK_OF_THEIRS],
        is: |sa| sa.ppk,
        ..USUAL
    },
    Case {
        name: "PPK, optional, which strongSwan does not have",
        ours: &[("ppk", "{ id: other, secret_file: PPK_FILE, required: false }")],
        ..USUAL
    },
];

#[test]
fn everything_that_both_know_is_agreed_on_in_either_role() {
    let mut scene = Scene::new("udp-then-tcp", &[("children/net/start", "none")]);
    scene.pair.a.start().unwrap();
    let ppk_file = scene.pair.lab.instance.directory().join("ppk");
    write_secret(&ppk_file).unwrap();
    let mut before = scene.pair.settings.clone();
    before.set("secrets/ppk-shared/id", PPK_ID);
    before.set("secrets/ppk-shared/secret", std::fs::read_to_string(&ppk_file).unwrap());
    let ours = scene.pair.a.configuration().unwrap();
    for case in CASES {
        for &initiator in case.initiators {
            case.load(&scene, ours.clone(), before.clone(), &ppk_file);
            case.passes(&scene, initiator);
        }
    }
    // What some of the cases are there for, in either role.
    for exchange in ["IKE_INTERMEDIATE request 1 [ EF(1/2)", "IKE_FOLLOWUP_KE request"] {
        for did in ["parsed", "generating"] {
            let line = format!("{did} {exchange}");
            assert!(scene.pair.b.wait_log(SOON, |l| l.contains(&line)).is_some(), "{line}");
        }
    }
    scene.finish();
}

impl Case {
    /// Both ends know nothing but this case.
    fn load(&self, scene: &Scene, mut ours: DaemonConfig, mut theirs: Settings, ppk_file: &Path) {
        let address = |side: Side| match (self.over_ipv6, side.wan()) {
            (false, (v4, _)) => IpAddr::from(v4),
            (true, (_, v6)) => v6.into(),
        };
        for (end, side) in [("local", Side::B), ("remote", Side::A)] {
            theirs.set(&format!("connections/{THEIRS}/{end}_addrs"), address(side).to_string());
        }
        theirs.set(&format!("connections/{THEIRS}/proposals"), self.ike);
        theirs.set(&format!("connections/{THEIRS}/children/{CHILD}/esp_proposals"), self.esp);
        for (key, value) in self.theirs {
            theirs.set(&format!("connections/{THEIRS}/{key}"), *value);
        }
        scene.pair.b.load(&theirs).unwrap();
        ours.set(&format!("connections/{OURS}/remote/address"), address(Side::B).to_string());
        let proposals = [("ike".to_owned(), self.ike), (format!("children/{CHILD}"), self.esp)];
        for (section, list) in proposals {
            ours.set_yaml(&format!("connections/{OURS}/{section}/proposals"), &format!("[{list}]")).unwrap();
        }
        for (key, value) in self.ours {
            let value = value.replace("PPK_FILE", &ppk_file.display().to_string());
            ours.set_yaml(&format!("connections/{OURS}/{key}"), &value).unwrap();
        }
        scene.pair.a.configure(ours).unwrap();
        scene.pair.a.verb(&["reload"]).unwrap();
    }

    /// Up, traffic, new keys for the child, 10 MB each way, down.
    fn passes(&self, scene: &Scene, initiator: Side) {
        let Self { name, .. } = self;
        let (a, b) = (&scene.pair.a, &scene.pair.b);
        let failed = |error| panic!("{name}, {initiator:?} initiates: {error:#}\n{}", scene.logs());
        match initiator {
            Side::A => a.verb(&["up", OURS, "--child", CHILD]).map(drop),
            Side::B => b.initiate(CHILD),
        }
        .unwrap_or_else(failed);
        let (ours, _) = scene.wait_up();
        assert_eq!(ours.ike_sas[0].algorithms, self.ike, "{name}, {initiator:?}");
        assert!((self.is)(&ours.ike_sas[0]), "{name}, {initiator:?}: {:#?}", ours.ike_sas[0]);
        let is_answered = |what: &str| {
            let report = Ping { count: 3, ..Ping::to(Side::B.host().0) }.run(&scene.pair.lab.host_a).unwrap();
            assert_eq!(report.answered, 3, "{name}, {initiator:?}, {what}\n{}", scene.logs());
        };
        is_answered("at first");
        let child = |sa: &IkeSa| sa.installed(CHILD).unwrap().spis.clone();
        life::renewed(scene, name, child, || {
            match initiator {
                Side::A => a.verb(&["rekey", OURS, "--child", CHILD]).map(drop),
                Side::B => b.rekey_child(CHILD),
            }
            .unwrap_or_else(failed);
        });
        let (ours, _) = scene.wait_up();
        assert_eq!(ours.ike_sas[0].children[0].algorithms, self.esp, "{name}, {initiator:?}");
        is_answered("rekeyed");
        scene.carries_traffic();
        a.verb(&["down", OURS]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        b.wait_sas(SOON, <[IkeSa]>::is_empty).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
}
