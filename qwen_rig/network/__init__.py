"""Where a host's files come from: indexes looked up, mirrors measured and chosen, bundles collected and served."""
