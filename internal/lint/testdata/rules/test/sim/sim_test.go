package sim

import "testing"

var attacks = []string{"first-attack"}

func TestAttack(t *testing.T) { t.Log(attacks) }
