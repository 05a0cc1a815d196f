package explore

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/block"
)

// planner compiles types into plans, once, so that copying or hashing a core
// costs no look at its types.
type planner struct {
	plans map[reflect.Type]*plan
	notes map[string]note
}

// plan is what to do with a value of one type.
type plan struct {
	typ  reflect.Type
	size uintptr
	kind reflect.Kind
	// flat: a copy of the bytes is a copy of the value.
	flat bool
	// raw: equal values have equal bytes.
	raw    bool
	elem   *plan
	fields []field
	note   note
}

type field struct {
	name   string
	offset uintptr
	plan   *plan
	note   note
}

// note says how the canonical form of a value departs from its plain one.
type note func(c *canon, p unsafe.Pointer)

// sharedTypes are never changed once they are made, so copies share them: what a
// core has sent may be held by links for as long as they like, views are replaced
// as a whole, and buffers are those of the stock.
var sharedTypes = map[reflect.Type]bool{
	reflect.TypeFor[*block.Buffer]():     true,
	reflect.TypeFor[*block.Update]():     true,
	reflect.TypeFor[*block.Open]():       true,
	reflect.TypeFor[*block.Opened]():     true,
	reflect.TypeFor[error]():             true,
	reflect.TypeFor[[]block.Member]():    true,
	reflect.TypeFor[[]block.DirtySet]():  true,
	reflect.TypeFor[[]block.Confirmed](): true,
	reflect.TypeFor[[]block.Snapshot]():  true,
}

func newPlanner(notes map[string]note) *planner {
	return &planner{plans: make(map[reflect.Type]*plan), notes: notes}
}

// of is the plan of a type. Its kinds are those that a core is made of; another
// one is a reason to look again.
func (b *planner) of(t reflect.Type) *plan {
	if p := b.plans[t]; p != nil {
		return p
	}
	p := &plan{typ: t, size: t.Size(), kind: t.Kind()}
	b.plans[t] = p
	p.note = b.notes[typeName(t)]
	if sharedTypes[t] {
		p.flat = true
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		p.flat, p.raw = true, true
	case reflect.Struct:
		b.ofStruct(p)
	case reflect.Array:
		p.elem = b.of(t.Elem())
		p.flat, p.raw = p.elem.flat, p.elem.raw && p.elem.note == nil
	case reflect.Slice, reflect.Pointer:
		p.elem = b.of(t.Elem())
	case reflect.Map:
		p.elem = b.of(t.Elem())
		b.of(t.Key())
	case reflect.Interface, reflect.Func:
		if !p.flat {
			panic(fmt.Sprintf("explore: no plan for %v", t))
		}
	default:
		panic(fmt.Sprintf("explore: no plan for %v", t))
	}
	return p
}

func (b *planner) ofStruct(p *plan) {
	if sharedTypes[reflect.PointerTo(p.typ)] && p.typ == reflect.TypeFor[block.Buffer]() {
		return // never looked into
	}
	p.flat, p.raw = true, true
	var end uintptr
	for i := range p.typ.NumField() {
		f := p.typ.Field(i)
		n := b.notes[typeName(p.typ)+"."+f.Name]
		fp := b.of(f.Type)
		p.fields = append(p.fields, field{name: f.Name, offset: f.Offset, plan: fp, note: n})
		p.flat = p.flat && fp.flat
		// Padding may hold anything.
		p.raw = p.raw && fp.raw && fp.note == nil && n == nil && f.Offset == end
		end = f.Offset + f.Type.Size()
	}
	p.raw = p.raw && end == p.typ.Size()
}

func typeName(t reflect.Type) string { return t.Name() }

// detach makes the value at p, a copy of the bytes of another one, independent
// of it.
func (p *plan) detach(at unsafe.Pointer) {
	if p.flat {
		return
	}
	switch p.kind {
	case reflect.Struct:
		for i := range p.fields {
			if f := &p.fields[i]; !f.plan.flat {
				f.plan.detach(unsafe.Add(at, f.offset))
			}
		}
	case reflect.Array:
		for i := range p.typ.Len() {
			p.elem.detach(unsafe.Add(at, uintptr(i)*p.elem.size))
		}
	case reflect.Slice:
		p.detachSlice(at)
	case reflect.Pointer:
		old := reflect.NewAt(p.typ, at).Elem()
		if old.IsNil() {
			return
		}
		made := reflect.New(p.typ.Elem())
		made.Elem().Set(old.Elem())
		old.Set(made)
		p.elem.detach(made.UnsafePointer())
	case reflect.Map:
		old := reflect.NewAt(p.typ, at).Elem()
		if old.IsNil() {
			return
		}
		made := reflect.MakeMapWithSize(p.typ, old.Len())
		for it := old.MapRange(); it.Next(); {
			made.SetMapIndex(it.Key(), it.Value())
		}
		old.Set(made)
	default:
		panic(fmt.Sprintf("explore: copy of %v", p.typ))
	}
}

// header is a slice as the language lays it out.
type header struct {
	data     unsafe.Pointer
	len, cap int
}

func (p *plan) detachSlice(at unsafe.Pointer) {
	h := (*header)(at)
	if h.data == nil || h.len == 0 && h.cap == 0 {
		return
	}
	if h.len == 0 {
		h.cap = 0 // a common backing array must not be appended to
		return
	}
	old := reflect.NewAt(p.typ, at).Elem()
	made := reflect.MakeSlice(p.typ, h.len, h.len)
	reflect.Copy(made, old)
	old.Set(made)
	if p.elem.flat {
		return
	}
	for i := range h.len {
		p.elem.detach(unsafe.Add(h.data, uintptr(i)*p.elem.size))
	}
}

// append adds the canonical form of the value at p.
func (p *plan) append(c *canon, at unsafe.Pointer) {
	if p.note != nil {
		p.note(c, at)
		return
	}
	if p.raw {
		c.raw(at, p.size)
		return
	}
	switch p.kind {
	case reflect.Struct:
		p.appendFields(c, at)
	case reflect.Array:
		for i := range p.typ.Len() {
			p.elem.append(c, unsafe.Add(at, uintptr(i)*p.elem.size))
		}
	case reflect.Slice:
		h := (*header)(at)
		if h.data == nil {
			c.byte(0)
			return
		}
		c.byte(1)
		c.byte(byte(h.len))
		for i := range h.len {
			p.elem.append(c, unsafe.Add(h.data, uintptr(i)*p.elem.size))
		}
	case reflect.Pointer:
		to := *(*unsafe.Pointer)(at)
		c.bool(to != nil)
		if to != nil {
			p.elem.append(c, to)
		}
	default:
		panic(fmt.Sprintf("explore: no canonical form of %v", p.typ))
	}
}

func (p *plan) appendFields(c *canon, at unsafe.Pointer) {
	for i := range p.fields {
		f := &p.fields[i]
		q := unsafe.Add(at, f.offset)
		if f.note != nil {
			f.note(c, q)
			continue
		}
		f.plan.append(c, q)
	}
}

// path is the offset of a field, named as "peers" or "log.next", in a struct
// type, and its type.
func path(t reflect.Type, names ...string) (uintptr, reflect.Type) {
	var at uintptr
	for _, name := range names {
		f, ok := t.FieldByName(name)
		if !ok {
			panic(fmt.Sprintf("explore: %v has no field %s any more", t, name))
		}
		at += f.Offset
		t = f.Type
	}
	return at, t
}
