package engine

import "example.org/time"

type bed struct{}

func (bed) Sleep() {}

func rest(b bed) { b.Sleep() }
