"""What proves the claims: speed beside the peers, learning over seeds, tables and figures."""
