package silent // want "no comment"
