//! A connection is known to every shard; its SAs live in some. This puts the views together.

use std::cell::OnceCell;
use std::collections::HashMap;

use portcullis_ike::status::{ConnectionStatus, IkeSaStatus, State};

use crate::config::Connection;
use crate::snapshot::{ShardSnapshot, Snapshot};

/// One connection as all shards together know it.
#[derive(Clone, Debug)]
pub struct Merged<'a> {
    /// As configured.
    pub config: &'a Connection,
    /// The view of the shard that is furthest along; none while a new connection has not reached a shard.
    pub status: Option<&'a ConnectionStatus>,
    /// Every IKE SA with the shard that owns it, the newest first.
    pub ike_sas: Vec<(&'a ShardSnapshot, &'a IkeSaStatus)>,
}

/// Every configured connection, in the order of the file.
pub fn connections(snapshot: &Snapshot) -> impl Iterator<Item = Merged<'_>> {
    // Shards list connections in the order they were given, so that no search is needed; while a reload is under way they
    // may not, and are searched by name.
    let shards: Vec<_> = snapshot.shards.iter().map(|shard| (shard, OnceCell::new())).collect();
    snapshot.config.connections.iter().enumerate().map(move |(index, config)| {
        let views = shards.iter().filter_map(|(shard, by_name)| {
            let name = &*config.ike.name;
            let at_index = shard.connections.get(index).filter(|c| &*c.name == name);
            let found = at_index.or_else(|| by_name.get_or_init(|| by_name_in(shard)).get(name).copied());
            found.map(|status| (*shard, status))
        });
        let views: Vec<_> = views.collect();
        let mut ike_sas: Vec<_> = views
            .iter()
            .flat_map(|(shard, status)| status.ike_sas.iter().map(move |sa| (*shard, sa)))
            .collect();
        ike_sas.sort_by_key(|(_, sa)| std::cmp::Reverse(sa.established));
        let status =
            views.iter().map(|(_, status)| *status).max_by_key(|s| (!s.ike_sas.is_empty(), rank(s.state)));
        Merged { config, status, ike_sas }
    })
}

fn by_name_in(shard: &ShardSnapshot) -> HashMap<&str, &ConnectionStatus> {
    shard.connections.iter().map(|status| (&*status.name, status)).collect()
}

/// How much a shard knows: the one that carries traffic, else the one that tries, else the one that gave up.
fn rank(state: State) -> u8 {
    match state {
        State::DirectIp | State::DirectUdp | State::Tcp | State::Trial => 5,
        State::Unverified | State::Probing | State::Suspect => 4,
        State::Connecting => 3,
        State::Blocked | State::PeerDead => 2,
        State::LocalDown => 1,
        State::Idle => 0,
    }
}
