package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// maxLayerName and maxElement are how long a name in a layer, and each folder's or file's own name in it, may be on a
	// node's disk.
	maxLayerName = 4095
	maxElement   = 255
	// maxAccounts is how large a file of users or groups is looked at.
	maxAccounts = 16 << 10
	whiteout    = ".wh."
)

// layerFacts are what was learned of a layer by reading it.
type layerFacts struct {
	// diffID is the digest of the layer's tar.
	diffID digest.Digest
	// size is how much the layer takes up unpacked, entries how many names it holds.
	size, entries int64
	// users and groups are its /etc/passwd and /etc/group.
	users, groups accounts
}

// matchLayers refuses an image whose manifest and config do not speak of the same number of layers, or of more than an
// engine stacks.
func (l Limits) matchLayers(m parsedManifest, config Config) error {
	got, want := len(m.Layers), len(config.diffIDs)
	if got != want {
		return invalid("the image's manifest names %d layers, its config %d", got, want)
	}
	return l.checkDepth(got)
}

// checkDepth refuses more layers than an engine stacks.
func (l Limits) checkDepth(layers int) error {
	if layers > l.Layers {
		return fmt.Errorf("the image has %d layers, and an engine stacks no more than %d; build it with fewer steps: %w", layers, l.Layers, errdefs.ErrResourceExhausted)
	}
	return nil
}

// examination reads the layers of one image as a node will, lowest first, so that what a node would choke on is refused
// here. What is read is bounded for the whole image, however it is divided into layers.
type examination struct {
	limits Limits
	// known are facts of layers that were read before. A layer that an image has twice is read once.
	known map[digest.Digest]layerFacts

	layers        int
	size, entries int64
	// seed and names are what the layers so far hold, by hash: kept small, since a name may be 4 KiB long.
	seed  maphash.Seed
	names map[uint64]place
	// skipped says that a lower layer was known already, so that names may be missing.
	skipped       bool
	users, groups accounts
}

// place is where a name stands.
type place struct {
	layer int32
	kind  byte
}

func (l Limits) examine() *examination {
	return &examination{limits: l, known: map[digest.Digest]layerFacts{}, seed: maphash.MakeSeed(), names: map[uint64]place{}}
}

// layer reads the next layer, or goes by what is known of it. DiffID is what the image's config gives as the digest of
// the layer's tar.
func (e *examination) layer(ctx context.Context, layer part, diffID digest.Digest) error {
	what := "layer " + layer.digest.String()
	facts, known := e.known[layer.digest]
	if known && e.size+facts.size > e.limits.ExpandedBytes {
		return tooLarge("the image", e.limits.ExpandedBytes)
	}
	if !known {
		var err error
		if facts, err = e.read(ctx, what, layer); err != nil {
			return err
		}
		e.known[layer.digest] = facts
	}
	if facts.diffID != diffID {
		return invalid("%s has the content digest %s, not %s as the image's config says", what, facts.diffID, diffID)
	}
	e.layers++
	e.size, e.entries, e.skipped = e.size+facts.size, e.entries+facts.entries, e.skipped || known
	if e.entries > e.limits.LayerEntries {
		return e.tooMany()
	}
	e.users, e.groups = facts.users.over(e.users), facts.groups.over(e.groups)
	return nil
}

func (e *examination) tooMany() error {
	return fmt.Errorf("the image's layers hold more than %d entries, which is the limit: %w", e.limits.LayerEntries, errdefs.ErrResourceExhausted)
}

// read goes through a layer that is not known yet.
func (e *examination) read(ctx context.Context, what string, layer part) (layerFacts, error) {
	facts, err := e.readFile(ctx, what, layer)
	if errors.Is(err, errExpands) {
		err = tooLarge("the image", e.limits.ExpandedBytes)
	}
	return facts, err
}

func (e *examination) readFile(ctx context.Context, what string, layer part) (layerFacts, error) {
	file, err := os.Open(layer.path)
	if err != nil {
		return layerFacts{}, fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	limits := e.limits
	limits.ExpandedBytes -= e.size
	guarded, err := limits.expand(ctx, what, file)
	if errors.Is(err, io.EOF) {
		// Some builders write a layer that changes nothing as no bytes at all, and engines take it.
		return layerFacts{diffID: layer.digest}, nil
	}
	if err != nil {
		return layerFacts{}, err
	}
	w := &walk{examination: e, what: what, facts: layerFacts{diffID: layer.digest}}
	if !guarded.compressed {
		// The tar's digest is known, and the files in it can be skipped on disk.
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return layerFacts{}, fmt.Errorf("read a layer: %w", err)
		}
		err := w.entries(ctx, tar.NewReader(file))
		w.facts.size = max(w.facts.size, layer.size)
		return w.facts, err
	}
	sum := sha256.New()
	teed := io.TeeReader(guarded, sum)
	if err := w.entries(ctx, tar.NewReader(teed)); err != nil {
		return layerFacts{}, err
	}
	if _, err := io.Copy(io.Discard, teed); err != nil {
		return layerFacts{}, damaged(what, err)
	}
	w.facts.diffID, w.facts.size = digest.NewDigest(digest.SHA256, sum), max(w.facts.size, guarded.produced)
	return w.facts, nil
}

// walk goes through one layer. Names may be absolute there, and links may point anywhere: they are resolved within the
// container's root. What leads out of that root is refused, and what an engine does not unpack.
type walk struct {
	*examination
	what  string
	facts layerFacts
}

func (w *walk) entries(ctx context.Context, reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(w.what, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.facts.entries++
		if w.examination.entries+w.facts.entries > w.limits.LayerEntries {
			return w.tooMany()
		}
		w.facts.size += header.Size
		if header.Size < 0 || w.facts.size < 0 || w.size+w.facts.size > w.limits.ExpandedBytes {
			return errExpands
		}
		if err := w.entry(header); err != nil {
			return err
		}
		if err := w.account(header, reader); err != nil {
			return damaged(w.what, err)
		}
	}
}

// entry looks at one name of the layer and remembers it.
func (w *walk) entry(header *tar.Header) error {
	written := path.Clean(header.Name)
	if leadsOut(header.Name) || header.Typeflag == tar.TypeLink && leadsOut(header.Linkname) {
		return invalid("%s holds the name %q, which leads out of the container", w.what, header.Name)
	}
	if err := w.tooLong(written); err != nil {
		return err
	}
	here := int32(w.layers)
	// Engines compare the names as they are written: "/a" is not "a" to them.
	name := w.key(written)
	if before, ok := w.names[name]; ok && before.layer == here {
		return invalid("%s holds %q twice, which engines refuse to unpack; build the layer anew with each file once", w.what, header.Name)
	}
	rooted := path.Join("/", written)
	dir, base := path.Split(rooted)
	if parent, ok := w.at(dir); ok && parent.layer == here && parent.kind != tar.TypeDir && parent.kind != tar.TypeSymlink {
		return invalid("%s holds %q, but %q above it is no folder there", w.what, header.Name, path.Clean(dir))
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok && !strings.HasPrefix(hidden, whiteout) {
		if hidden == "" || hidden == "." || hidden == ".." {
			return invalid("%s holds %q, which says that a file is deleted, but not which", w.what, header.Name)
		}
		if before, ok := w.at(path.Join(dir, hidden)); ok && before.layer == here {
			return invalid("%s holds %q and says, with %q, that it is deleted; engines refuse to unpack that", w.what, path.Join(path.Dir(written), hidden), header.Name)
		}
	}
	if header.Typeflag == tar.TypeLink {
		if err := w.hardLink(header); err != nil {
			return err
		}
	}
	w.names[name] = place{here, header.Typeflag}
	return nil
}

func (w *walk) tooLong(name string) error {
	if len(name) > maxLayerName {
		return invalid("%s holds a name of %d bytes, and none may be longer than %d", w.what, len(name), maxLayerName)
	}
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > maxElement {
			return invalid("%s holds a name with a part of %d bytes, %q…, and none may be longer than %d", w.what, len(element), element[:32], maxElement)
		}
	}
	return nil
}

// hardLink refuses a link to what is not there, as far as that can be told: what lower layers hold is not known if they
// were read earlier, and symbolic links may lead anywhere.
func (w *walk) hardLink(header *tar.Header) error {
	target := path.Join("/", header.Linkname)
	found, ok := w.at(target)
	switch {
	case ok && found.kind == tar.TypeDir:
		return invalid("%s links %q to the folder %q, which no file system allows", w.what, header.Name, header.Linkname)
	case ok || w.skipped:
		return nil
	}
	for dir := path.Dir(target); dir != "/"; dir = path.Dir(dir) {
		if above, ok := w.at(dir); ok && above.kind == tar.TypeSymlink {
			return nil
		}
	}
	return invalid("%s links %q to %q, which is not there before it", w.what, header.Name, header.Linkname)
}

// at is where a rooted name stands, with or without a slash in front.
func (w *walk) at(rooted string) (place, bool) {
	rooted = path.Clean(rooted)
	if found, ok := w.names[w.key(rooted)]; ok {
		return found, true
	}
	found, ok := w.names[w.key(strings.TrimPrefix(rooted, "/"))]
	return found, ok
}

func (w *walk) key(name string) uint64 { return maphash.String(w.seed, name) }

// account remembers the layer's files of users and groups.
func (w *walk) account(header *tar.Header, content io.Reader) error {
	name := path.Join("/", header.Name)
	file := &w.facts.users
	switch name {
	case "/etc/passwd", "/etc/.wh.passwd":
	case "/etc/group", "/etc/.wh.group":
		file = &w.facts.groups
	case "/etc", "/.wh.etc", "/etc/.wh..wh..opq", "/.wh..wh..opq":
		if header.Typeflag != tar.TypeDir {
			w.facts.users, w.facts.groups = w.facts.users.replaced(header), w.facts.groups.replaced(header)
		}
		return nil
	default:
		return nil
	}
	*file = file.replaced(header)
	if file.state != accountsKnown {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(content, maxAccounts))
	file.text = string(text)
	return err
}

func leadsOut(name string) bool {
	relative := path.Clean(strings.TrimLeft(name, "/"))
	return relative == ".." || strings.HasPrefix(relative, "../")
}

// isGzip reports whether a file begins as gzip does.
func isGzip(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	var start [2]byte
	_, err = io.ReadFull(file, start[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return false, nil
	}
	return start == [2]byte{0x1f, 0x8b}, err
}
