package state

import (
	"bytes"
	"iter"
	"slices"
	"sort"

	"github.com/holdfast-io/holdfast/internal/block"
)

// table is an immutable map from IDs, iterated by rising ID. A change copies the
// root (6 KiB) and one bucket and shares the rest: IDs are random, so that their
// first byte spreads them evenly over the buckets.
type table[V any] struct {
	buckets *[256][]row[V]
	count   int
}

type row[V any] struct {
	id    block.ID
	value V
}

// find looks at rows where they are: a row may be half a kilobyte, and is not copied to
// be compared.
func (t table[V]) find(id block.ID) (int, bool) {
	bucket := t.buckets[id[0]]
	i := sort.Search(len(bucket), func(i int) bool { return bytes.Compare(bucket[i].id[:], id[:]) >= 0 })
	return i, i < len(bucket) && bucket[i].id == id
}

func (t table[V]) get(id block.ID) (V, bool) {
	var none V
	if t.buckets == nil {
		return none, false
	}
	i, ok := t.find(id)
	if !ok {
		return none, false
	}
	return t.buckets[id[0]][i].value, true
}

func (t table[V]) has(id block.ID) bool {
	_, ok := t.get(id)
	return ok
}

// with is the table in which id has the value.
func (t table[V]) with(id block.ID, value V) table[V] {
	root := new([256][]row[V])
	if t.buckets != nil {
		*root = *t.buckets
	}
	next := table[V]{buckets: root, count: t.count}
	i, ok := next.find(id)
	bucket := slices.Clone(root[id[0]])
	if ok {
		bucket[i].value = value
	} else {
		bucket = slices.Insert(bucket, i, row[V]{id: id, value: value})
		next.count++
	}
	root[id[0]] = bucket
	return next
}

// without is the table that lacks id.
func (t table[V]) without(id block.ID) table[V] {
	if !t.has(id) {
		return t
	}
	root := new([256][]row[V])
	*root = *t.buckets
	i, _ := t.find(id)
	root[id[0]] = slices.Delete(slices.Clone(root[id[0]]), i, i+1)
	return table[V]{buckets: root, count: t.count - 1}
}

// mark is the table in which id has the value, or is lacking.
func (t table[V]) mark(id block.ID, value V, on bool) table[V] {
	switch {
	case !on:
		return t.without(id)
	case t.has(id):
		return t
	default:
		return t.with(id, value)
	}
}

// after yields the values of all IDs above id, by rising ID.
func (t table[V]) after(id block.ID) iter.Seq[V] {
	return func(yield func(V) bool) {
		if t.buckets == nil {
			return
		}
		first, found := t.find(id)
		if found {
			first++
		}
		for b := int(id[0]); b < len(t.buckets); b++ {
			for i := first; i < len(t.buckets[b]); i++ {
				if !yield(t.buckets[b][i].value) {
					return
				}
			}
			first = 0
		}
	}
}

// all yields every value by rising ID.
func (t table[V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		if t.buckets == nil {
			return
		}
		for b := range t.buckets {
			for i := range t.buckets[b] {
				if !yield(t.buckets[b][i].value) {
					return
				}
			}
		}
	}
}
