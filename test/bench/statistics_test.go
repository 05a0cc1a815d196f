package main

import "testing"

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values  []float64
		want    spread
		percent float64
	}{
		{nil, spread{}, 0},
		{[]float64{4}, spread{4, 4, 4}, 0},
		{[]float64{3, 1, 2}, spread{2, 1, 3}, 100},
		{[]float64{4, 1, 2, 10}, spread{3, 1, 10}, 300},
	} {
		if got := spreadOf(c.values); got != c.want || got.percent() != c.percent {
			t.Errorf("%v: %+v, %v%%", c.values, got, got.percent())
		}
	}
	values := []float64{3, 1, 2}
	if spreadOf(values); values[0] != 3 {
		t.Error("the values were sorted in place")
	}
}
