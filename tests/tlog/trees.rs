//! Roots, inclusion and consistency against the model: every size to 1,100, and sampled sizes as far as `u64` reaches.

use countersign::tlog::{
    Delta, EMPTY_ROOT, Hash, HashReader, NodeId, ProofError, RightEdge, check_consistency, check_inclusion, proof,
    prove_consistency, prove_inclusion, root_of, tree::frontier,
};
use proptest::prelude::*;

use super::model::Model;

/// Sizes at which every index is proven: all small ones, those around powers of two, and some between.
fn sizes() -> impl Iterator<Item = u64> {
    let around = (6..=10).flat_map(|level| [(1 << level) - 1, 1 << level, (1 << level) + 1]);
    (0..=70).chain(around).chain((71..=1_100).step_by(49)).chain([1_100])
}

fn inclusion_is_that_of_the_model(model: &Model, index: u64, size: u64) {
    let proof = prove_inclusion(index, size, model).unwrap();
    assert_eq!(proof, model.path(index, 0, size), "leaf {index} of {size}");
    check_inclusion(&model.leaf(index), index, size, &proof, &model.root(0, size)).unwrap();
}

fn consistency_is_that_of_the_model(model: &Model, from: u64, to: u64) {
    let proof = prove_consistency(from, to, model).unwrap();
    let expected = if from == 0 { Vec::new() } else { model.subproof(from, 0, to, true) };
    assert_eq!(proof, expected, "{from} to {to}");
    check_consistency(from, &model.root(0, from), to, &model.root(0, to), &proof).unwrap();
}

#[test]
fn roots_of_all_sizes_are_those_of_the_model() {
    let model = Model::dense(1_100);
    for size in 0..=1_100 {
        assert_eq!(root_of(size, &model).unwrap(), model.root(0, size), "{size}");
    }
    assert_eq!(root_of(0, &model).unwrap(), EMPTY_ROOT);
}

#[test]
fn every_leaf_of_many_sizes_is_proven_as_the_model_does() {
    let model = Model::dense(1_100);
    for size in sizes() {
        for index in 0..size {
            inclusion_is_that_of_the_model(&model, index, size);
        }
        assert_eq!(prove_inclusion(size, size, &model), Err(ProofError::IndexOutside { index: size, size }));
        assert_eq!(
            check_inclusion(&[0; 32], size, size, &[], &EMPTY_ROOT),
            Err(ProofError::IndexOutside { index: size, size })
        );
    }
}

#[test]
fn every_pair_of_small_sizes_is_consistent_as_in_the_model() {
    let model = Model::dense(132);
    for to in 0..=132 {
        for from in 0..=to {
            consistency_is_that_of_the_model(&model, from, to);
        }
        let swapped = Err(ProofError::SizesSwapped { from: to + 1, to });
        assert_eq!(prove_consistency(to + 1, to, &model), swapped);
        assert_eq!(check_consistency(to + 1, &EMPTY_ROOT, to, &EMPTY_ROOT, &[]).map(|()| Vec::new()), swapped);
    }
}

#[test]
fn sampled_pairs_of_all_sizes_are_consistent_as_in_the_model() {
    let model = Model::dense(1_100);
    for to in 133..=1_100_u64 {
        for from in [to / 3, to / 2 + 1, to - 1, to & (to - 1), to.next_power_of_two() / 2] {
            consistency_is_that_of_the_model(&model, from, to);
        }
    }
}

/// Sizes of every magnitude to 2^40, and a few beyond.
fn large_size() -> impl Strategy<Value = u64> {
    let sampled = (0_u32..=40, any::<u64>()).prop_map(|(bits, size)| (size & ((1 << bits) - 1)).max(1));
    let around = (1_u32..=40, 0_u64..=2).prop_map(|(bits, more)| (1 << bits) - 1 + more);
    prop_oneof![8 => sampled, 4 => around, 1 => Just(u64::MAX), 1 => any::<u64>().prop_map(|size| size.max(1))]
}

/// A sparse tree with its size, an index in it and a size not above it.
fn large_tree() -> impl Strategy<Value = (Model, u64, u64, u64)> {
    let places = prop::collection::vec(any::<u64>(), 0..6);
    (large_size(), places, any::<u64>(), any::<u64>(), any::<prop::sample::Index>(), 0_u64..4).prop_map(
        |(size, places, index, from, pick, near)| {
            let mut odd: Vec<u64> = places.iter().map(|place| place % size).chain([0, size - 1]).collect();
            // Half of the indexes are an odd leaf's own, or its neighbour's.
            let beside = (odd[pick.index(odd.len())] ^ near).min(size - 1);
            let index = if near < 2 { beside } else { index % size };
            odd.push(index);
            (Model::sparse(odd), size, index, from % size + 1)
        },
    )
}

proptest! {
    #[test]
    fn large_trees_are_those_of_the_model((model, size, index, from) in large_tree()) {
        prop_assert_eq!(root_of(size, &model).unwrap(), model.root(0, size));
        inclusion_is_that_of_the_model(&model, index, size);
        consistency_is_that_of_the_model(&model, from, size);
    }

    #[test]
    fn appending_to_a_large_tree_gives_the_model_s((model, size, _, _) in large_tree(), count in 0_u64..300) {
        let old = size.min(u64::MAX - count);
        let before = model.read_hashes(&frontier(old)).unwrap();
        let leaves: Vec<Hash> = (old..old + count).map(|index| model.leaf(index)).collect();
        let delta = Delta::append(old, &before, &leaves).unwrap();
        prop_assert_eq!(delta.edge().root(), model.root(0, old + count));
        prop_assert_eq!(delta.frontier(), model.read_hashes(&frontier(old + count)).unwrap());
        for index in old..old + count {
            let path = proof::inclusion_under(index, delta.edge(), |node| delta.node(node)).unwrap();
            prop_assert_eq!(path, model.path(index, 0, old + count));
        }
        for level in 0..64 {
            let first = old.checked_shr(level).unwrap_or(0);
            let nodes: Vec<NodeId> =
                (first..(old + count) >> level).map(|index| NodeId { level, index }).collect();
            prop_assert_eq!(delta.new_nodes(level), model.read_hashes(&nodes).unwrap());
        }
    }

    #[test]
    fn appending_in_any_batches_gives_the_one_shot_tree(batches in prop::collection::vec(0_u64..70, 1..8)) {
        let model = Model::dense(batches.iter().sum());
        let (mut size, mut before) = (0, Vec::new());
        for batch in batches {
            let leaves: Vec<Hash> = (size..size + batch).map(|index| model.leaf(index)).collect();
            let delta = Delta::append(size, &before, &leaves).unwrap();
            prop_assert_eq!((delta.old_size(), delta.edge().size()), (size, size + batch));
            prop_assert_eq!(delta.edge().root(), model.root(0, size + batch));
            (size, before) = (size + batch, delta.frontier());
        }
    }
}

#[test]
fn a_frontier_that_does_not_fit_is_refused() {
    let model = Model::dense(20);
    for size in 0..20_u64 {
        let fitting = model.read_hashes(&frontier(size)).unwrap();
        assert!(RightEdge::new(size, &fitting).is_some());
        let longer = [fitting.clone(), vec![[0; 32]]].concat();
        let shorter = fitting.get(1..).map(<[Hash]>::to_vec);
        for wrong in [Some(longer), shorter].into_iter().flatten() {
            assert_eq!(RightEdge::new(size, &wrong), None, "{size}");
            assert!(Delta::append(size, &wrong, &[[0; 32]]).is_none(), "{size}");
        }
    }
    assert!(Delta::append(u64::MAX, &[[0; 32]; 64], &[[0; 32]]).is_none(), "there is no tree of 2^64 leaves");
}

#[test]
fn the_ragged_edge_is_what_stands_right_of_the_complete_nodes() {
    let model = Model::dense(300);
    for size in 0..300_u64 {
        let edge = RightEdge::new(size, &model.read_hashes(&frontier(size)).unwrap()).unwrap();
        for level in 0..70 {
            let complete = size.checked_shr(level).unwrap_or(0);
            let start = complete.checked_shl(level).unwrap_or(0);
            let expected = (start < size).then(|| model.root(start, size - start));
            assert_eq!(edge.ragged(level), expected, "level {level} of {size}");
        }
    }
}

/// Hashes that end too early.
struct Short;

impl HashReader for Short {
    type Error = ProofError;

    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, ProofError> {
        Ok(vec![[0; 32]; nodes.len().saturating_sub(1)])
    }
}

#[test]
fn hashes_that_are_missing_are_not_taken_for_an_empty_tree() {
    assert_eq!(root_of(5, &Short), Err(ProofError::Missing));
    assert_eq!(prove_inclusion(0, 5, &Short), Err(ProofError::Missing));
    assert_eq!(prove_consistency(3, 5, &Short), Err(ProofError::Missing));
    let edge = RightEdge::new(2, &[[0; 32]]).unwrap();
    assert_eq!(proof::inclusion_under(0, &edge, |_| None), Err(ProofError::Missing));
    assert_eq!(proof::inclusion_under(2, &edge, |_| None), Err(ProofError::IndexOutside { index: 2, size: 2 }));
}
