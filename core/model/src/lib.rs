//! The nouns of gantry: ids, units, resources, jobs, nodes, states and the machine trait.
