//! What collides, against a reference: a model of a page that knows when each end began what, and which exchange drew the
//! lowest nonce, and says which SAs live on (RFC 7296 sections 2.8.1, 2.8.2 and 2.25, RFC 9370 section 2.2.4). The endpoints
//! have to come to the same, at both ends, over any transport, whenever the second end begins.

use std::time::Duration;

use portcullis_ike::codec::ProtocolId;
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::StartTransport;
use portcullis_ike::status::ConnectionStatus;

use crate::configuration::{Pair, child};
use crate::created::{Created, CreatedSas};
use crate::seeds::walk_all;
use crate::world::World;

const SEEDS: u64 = 500;
const ROUNDS: usize = 8;
/// Collisions that are waited out come again after half a second to a second, and then more rarely.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// What an end does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    RekeyChild,
    DeleteChild,
    /// Makes another child.
    AddChild,
    RekeyIke,
    DeleteIke,
}

/// What an end does at some time; each end one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Start {
    by: usize,
    what: What,
    at: Duration,
}

/// What takes its time.
#[derive(Clone, Copy, Debug)]
struct Delays {
    one_way: Duration,
    /// Additional key exchanges of a child's rekey, and of an IKE SA's.
    child_series: u32,
    ike_series: u32,
}

/// What has become of an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Gone,
    Old,
    /// The one that this end's exchange has made is there in its place.
    Made(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LivesOn {
    ike: Fate,
    child: Fate,
    other_child: Fate,
}

/// The model. `lowest` is the end whose exchange drew the lowest of the four nonces, where two exchanges make the same.
fn lives_on(starts: [Start; 2], delays: Delays, lowest: impl Fn(ProtocolId) -> usize) -> LivesOn {
    use What::{AddChild, DeleteChild, DeleteIke, RekeyChild, RekeyIke};
    let [mut first, mut second] = starts;
    if second.at < first.at {
        (first, second) = (second, first);
    }
    if first.what == DeleteIke || second.what == DeleteIke {
        // 2.25.2: a request to close the IKE SA is answered whatever else goes on, and all of its children go with it.
        return LivesOn { ike: Fate::Gone, child: Fate::Gone, other_child: Fate::Gone };
    }
    let does = |what| starts.iter().find(|start| start.what == what);
    // Neither has heard of the other's request when it sends its own.
    let are_simultaneous = second.at < first.at + delays.one_way;
    // Two exchanges for the same: 2.8.1 and 2.8.2, the SA with the lowest nonce is closed by whom has made it. In a series
    // (RFC 9370) it is not even finished. Who begins later, but in the midst of the other's series, is put off with
    // TEMPORARY_FAILURE (RFC 9370 section 2.2.4), and afterwards there is nothing to be done any more. Who begins later still
    // rekeys what the first has made.
    let of_two = |protocol, series: u32| {
        let series_ends = first.at + delays.one_way * (1 + 2 * series);
        if are_simultaneous {
            Fate::Made(1 - lowest(protocol))
        } else if second.at < series_ends {
            Fate::Made(first.by)
        } else {
            Fate::Made(second.by)
        }
    };
    // 2.25.1: who rekeys what the other closes is told TEMPORARY_FAILURE, or later CHILD_SA_NOT_FOUND, and it is closed.
    let child = match (does(DeleteChild), does(RekeyChild)) {
        (Some(_), _) => Fate::Gone,
        (None, None) => Fate::Old,
        (None, Some(_)) if first.what == second.what => of_two(ProtocolId::ESP, delays.child_series),
        (None, Some(rekey)) => Fate::Made(rekey.by),
    };
    // 2.25.1 and 2.25.2: of the IKE SA's rekey and what is done to its children at the same time, one is put off or both are;
    // both are done in the end.
    let ike = match does(RekeyIke) {
        None => Fate::Old,
        Some(_) if first.what == second.what => of_two(ProtocolId::IKE, delays.ike_series),
        Some(rekey) => Fate::Made(rekey.by),
    };
    let other_child = match does(AddChild) {
        None => Fate::Gone,
        // No rule of RFC 7296: both may live. Ours: the same child once, decided as in 2.8.1.
        Some(_) if first.what == second.what && are_simultaneous => Fate::Made(1 - lowest(ProtocolId::ESP)),
        Some(_) if first.what == second.what => Fate::Made(first.by),
        Some(add) => Fate::Made(add.by),
    };
    LivesOn { ike, child, other_child }
}

#[test]
fn what_collides_ends_as_the_reference_says() {
    walk_all(SEEDS, collide);
}

fn collide(seed: u64) {
    let series = (seed / 3 % 3) as u32;
    let esp =
        ["aes256gcm16-esn", "aes128gcm16-x25519-ke1_mlkem512", "aes128gcm16-x25519-ke1_x25519-ke2_mlkem512"];
    let ike = ["aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"];
    let ike_series = (seed / 9 % 2) as u32;
    let transports = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
    let mut pair = Pair::new(transports[(seed % 3) as usize]).both(|connection| {
        connection.children[0].proposals = vec![esp[series as usize].parse().unwrap()];
        connection.ike.proposals = vec![ike[ike_series as usize].parse().unwrap()];
        // Nothing but what is told is done.
        connection.ike.liveness_after = Duration::from_secs(24 * 3600);
        connection.ike.retry_min = Duration::from_secs(24 * 3600);
        connection.ike.retry_max = Duration::from_secs(24 * 3600);
        connection.ike.rekey_after = Duration::from_secs(24 * 3600);
        connection.ike.lifetime = Duration::from_secs(48 * 3600);
        connection.children[0].rekey_after = Duration::from_secs(24 * 3600);
        connection.children[0].lifetime = Duration::from_secs(48 * 3600);
    });
    pair.a.children.push(child("other", "10.1.0.0/16", "10.3.0.0/16"));
    pair.b.children.push(child("other", "10.3.0.0/16", "10.1.0.0/16"));
    let mut world = pair.world(seed);
    let one_way = Duration::from_millis(5 + world.random(40));
    world.weather.latency = one_way;
    world.created = Some(CreatedSas::default());
    let delays = Delays { one_way, child_series: series, ike_series };
    for round in 0..ROUNDS {
        prepare(&mut world);
        let starts = starts(&mut world, delays);
        check(&mut world, starts, delays, &format!("seed {seed}, round {round}"));
    }
    world.shut_down_and_check();
}

/// One IKE SA with the child, and without the other one.
fn prepare(world: &mut World) {
    for node in 0..2 {
        world.command(node, CommandKind::Down { child: Some("other".into()) });
    }
    world.run_for(SETTLED_WITHIN);
    world.command(0, CommandKind::Up { child: Some("net".into()) });
    world.run_for(SETTLED_WITHIN);
    world.assert_settled(1);
}

/// Each end does one thing, at about the same time or one in the midst of the other's.
fn starts(world: &mut World, delays: Delays) -> [Start; 2] {
    let whats = [
        What::RekeyChild,
        What::RekeyChild,
        What::DeleteChild,
        What::AddChild,
        What::RekeyIke,
        What::DeleteIke,
    ];
    let mut pick = || whats[usize::try_from(world.random(6)).unwrap()];
    let whats = [pick(), pick()];
    // `up` after something is gone brings it back: no collision.
    let is_over = whats.contains(&What::AddChild)
        && (whats.contains(&What::DeleteIke) || whats.contains(&What::DeleteChild));
    let most = delays.one_way.as_micros() as u64 * if is_over || world.chance(50) { 1 } else { 10 };
    // Half a microsecond off every time at which something arrives.
    let offset = Duration::from_nanos(world.random(most) * 1000 + 500);
    let later = usize::try_from(world.random(2)).unwrap();
    [0, 1].map(|by| {
        let at = if by == later { offset } else { Duration::ZERO };
        Start { by, what: whats[by], at }
    })
}

fn check(world: &mut World, starts: [Start; 2], delays: Delays, name: &str) {
    created(world);
    let before = [0, 1].map(|node| alive(&world.status(node)));
    let began = world.now;
    let mut in_order = starts;
    in_order.sort_by_key(|start| start.at);
    for start in in_order {
        world.run_until(began + start.at);
        world.command(start.by, command(start.what));
    }
    world.run_until(began + SETTLED_WITHIN);
    let created = created(world);
    let lowest = |protocol| {
        let of_it: Vec<_> = created.iter().filter(|created| created.protocol == protocol).collect();
        let [one, other] = of_it[..] else { panic!("{name}: {starts:?}: two exchanges: {of_it:?}") };
        if one.lowest_nonce < other.lowest_nonce { one.by } else { other.by }
    };
    let expected = lives_on(starts, delays, lowest);
    for (node, before) in before.iter().enumerate() {
        let after = alive(&world.status(node));
        let found = fates(node, before, &after, &created);
        assert_eq!(found, Ok(expected), "{name}, node {node}: {starts:?}, {delays:?}: {created:x?}");
        let inbound = world.nodes[node].inbound.len();
        let lives = [expected.child, expected.other_child].iter().filter(|fate| **fate != Fate::Gone).count();
        assert_eq!(inbound, lives, "{name}, node {node}: {starts:?}, {delays:?}: pairs are left");
    }
}

/// What was agreed on since the last call.
fn created(world: &mut World) -> Vec<Created> {
    world.created.as_mut().map(CreatedSas::take).unwrap_or_default()
}

fn command(what: What) -> CommandKind {
    match what {
        What::RekeyChild => CommandKind::RekeyChild { child: Some("net".into()) },
        What::DeleteChild => CommandKind::Down { child: Some("net".into()) },
        What::AddChild => CommandKind::Up { child: Some("other".into()) },
        What::RekeyIke => CommandKind::RekeyIke,
        What::DeleteIke => CommandKind::Down { child: None },
    }
}

/// SPIs of what there is, initiator's first for IKE, inbound first for a child.
#[derive(Debug)]
struct Alive {
    ike: Vec<(u64, u64)>,
    child: Vec<(u32, u32)>,
    other_child: Vec<(u32, u32)>,
}

fn alive(status: &ConnectionStatus) -> Alive {
    let children = |name: &str| {
        let children = status.ike_sas.iter().flat_map(|sa| &sa.children);
        children.filter(|child| *child.name == *name).map(|child| child.spis).collect()
    };
    let ike = status.ike_sas.iter().map(|sa| sa.spis).collect();
    Alive { ike, child: children("net"), other_child: children("other") }
}

/// What has become of each at this node.
fn fates(node: usize, before: &Alive, after: &Alive, created: &[Created]) -> Result<LivesOn, String> {
    let child = |before: &[(u32, u32)], after: &[(u32, u32)]| {
        let inbound_first = |created: &Created| match created.by == node {
            true => created.spis,
            false => (created.spis.1, created.spis.0),
        };
        let wide = |spis: &[(u32, u32)]| spis.iter().map(|spis| (spis.0.into(), spis.1.into())).collect();
        fate(wide(before), wide(after), created, ProtocolId::ESP, inbound_first)
    };
    Ok(LivesOn {
        ike: fate(before.ike.clone(), after.ike.clone(), created, ProtocolId::IKE, |created| created.spis)?,
        child: child(&before.child, &after.child)?,
        other_child: child(&before.other_child, &after.other_child)?,
    })
}

fn fate(
    before: Vec<(u64, u64)>,
    after: Vec<(u64, u64)>,
    created: &[Created],
    protocol: ProtocolId,
    spis: impl Fn(&Created) -> (u64, u64),
) -> Result<Fate, String> {
    let made = |now| created.iter().find(|created| created.protocol == protocol && spis(created) == now);
    match after[..] {
        [] => Ok(Fate::Gone),
        [now] if before == [now] => Ok(Fate::Old),
        [now] => made(now).map(|created| Fate::Made(created.by)).ok_or(format!("nobody has made {now:x?}")),
        _ => Err(format!("several of them: {after:x?}")),
    }
}

/// The model against cases worked out by hand from the text.
#[test]
fn the_reference_says_what_the_rfcs_say() {
    use Fate::{Gone, Made, Old};
    let at = |by, what, ms| Start { by, what, at: Duration::from_millis(ms) };
    let delays =
        |child_series, ike_series| Delays { one_way: Duration::from_millis(10), child_series, ike_series };
    let says = |starts, delays| {
        let LivesOn { ike, child, other_child } = lives_on(starts, delays, |_| 0);
        (ike, child, other_child)
    };
    // RFC 7296 section 2.8.1: the SA created with the lowest of the four nonces should be closed.
    let rekeys = |ms| [at(0, What::RekeyChild, 0), at(1, What::RekeyChild, ms)];
    assert_eq!(says(rekeys(9), delays(0, 0)), (Old, Made(1), Gone));
    assert_eq!(says(rekeys(11), delays(0, 0)), (Old, Made(1), Gone), "one after the other");
    // RFC 9370 section 2.2.4: in the midst of a series, TEMPORARY_FAILURE.
    assert_eq!(says(rekeys(11), delays(1, 0)), (Old, Made(0), Gone));
    assert_eq!(says(rekeys(31), delays(1, 0)), (Old, Made(1), Gone));
    // RFC 7296 sections 2.8.2, 2.25.1 and 2.25.2.
    assert_eq!(
        says([at(0, What::RekeyIke, 5), at(1, What::RekeyIke, 0)], delays(0, 1)),
        (Made(1), Old, Gone)
    );
    assert_eq!(
        says([at(0, What::RekeyIke, 0), at(1, What::DeleteChild, 0)], delays(0, 1)),
        (Made(0), Gone, Gone)
    );
    assert_eq!(
        says([at(0, What::RekeyChild, 0), at(1, What::DeleteChild, 0)], delays(0, 0)),
        (Old, Gone, Gone)
    );
    assert_eq!(says([at(0, What::RekeyIke, 0), at(1, What::DeleteIke, 5)], delays(0, 0)), (Gone, Gone, Gone));
    assert_eq!(
        says([at(0, What::RekeyIke, 0), at(1, What::AddChild, 5)], delays(0, 0)),
        (Made(0), Old, Made(1))
    );
}
