"""Other registries, and what is brought from them. Begin with `angos.sansio.upstream.effects`."""
