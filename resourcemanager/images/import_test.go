package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/wire"
)

func openStore(t testing.TB, dir string, limits Limits) *Store {
	t.Helper()
	limits.Architecture = "amd64"
	store, err := Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func incomingFiles(t testing.TB, store *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(incomingDir(store.dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func stored(t testing.TB, store *Store) int64 {
	t.Helper()
	size, err := store.StoredBytes()
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func checkClass(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("%v is of neither class that bad archives have", err)
	}
}

func TestImportsEveryLayout(t *testing.T) {
	image := webImage(t)
	compressed := image
	compressed.layers = nil
	for _, layer := range image.layers {
		compressed.layers = append(compressed.layers, gzipped(t, layer))
	}
	repeated := image
	repeated.layers = append(slices.Clone(image.layers), image.layers[0])
	foreign := image
	foreign.architecture = "arm64"
	inner := indexOf(t,
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, foreign.manifest(t)), "linux", "arm64"),
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t)), "linux", "amd64"),
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, []byte("an attestation")), "unknown", "unknown"),
	)
	nested := describeBlob(ocispec.MediaTypeImageIndex, inner)
	nested.Annotations = map[string]string{ocispec.AnnotationRefName: "web:1.0"}

	for name, content := range map[string][]byte{
		"docker save":                   tarOf(t, image.saved(t, "web:1.0")...),
		"docker save, two tags":         tarOf(t, image.saved(t, "web:1.0", "web:latest")...),
		"docker save, a layer twice":    tarOf(t, repeated.saved(t, "web:1.0")...),
		"docker save, gzip layers":      tarOf(t, compressed.saved(t, "web:1.0")...),
		"docker save, gzip":             gzipped(t, tarOf(t, image.saved(t, "web:1.0")...)),
		"docker save, everything twice": tarOf(t, append(image.saved(t, "web:1.0"), image.saved(t, "web:1.0")...)...),
		"OCI":                           tarOf(t, image.oci(t, "web:1.0")...),
		"OCI, gzip layers":              tarOf(t, compressed.oci(t, "web:1.0")...),
		"OCI with docker's manifest":    tarOf(t, append(image.oci(t, ""), dockerManifestFor(t, image, "web:1.0"))...),
		"OCI with nested index":         tarOf(t, append(image.blobs(t), entry{name: "index.json", content: indexOf(t, nested)}, blobEntry(inner))...),
		"OCI, names with a leading dot": tarOf(t, dotted(image.oci(t, "web:1.0"))...),
		"docker save, index comes last": tarOf(t, reversed(image.saved(t, "web:1.0"))...),
		"OCI, index comes last":         tarOf(t, reversed(image.oci(t, "web:1.0"))...),
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, t.TempDir(), Limits{})
			imported, err := store.Import(t.Context(), bytes.NewReader(content), "")
			if err != nil {
				t.Fatal(err)
			}
			if imported.GetName() != "web:1.0" || imported.GetArchitecture() != "amd64" || len(imported.GetLayers()) < 2 {
				t.Errorf("imported %v", imported)
			}
			sum, config, err := store.Resolve(t.Context(), "web:1.0")
			if err != nil || sum != imported.GetDigest() {
				t.Fatalf("resolved to %s, %v; want %s", sum, err, imported.GetDigest())
			}
			if !config.HasCommand() || !slices.Equal(config.Entrypoint, image.command) || !slices.Equal(config.ExposedPorts, []string{"8080/tcp"}) {
				t.Errorf("config %+v", config)
			}
			if left := incomingFiles(t, store); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			// Importing it again stores nothing more.
			before := stored(t, store)
			if _, err := store.Import(t.Context(), bytes.NewReader(content), "other/name:2"); err != nil {
				t.Fatal(err)
			}
			if after := stored(t, store); after != before {
				t.Errorf("the same layers take %d bytes, then %d", before, after)
			}
		})
	}
}

func withPlatform(descriptor ocispec.Descriptor, os, architecture string) ocispec.Descriptor {
	descriptor.Platform = &ocispec.Platform{OS: os, Architecture: architecture}
	return descriptor
}

func dockerManifestFor(t *testing.T, image testImage, name string) entry {
	item := savedImage{Config: blobEntry(image.config(t)).name, RepoTags: []string{name}}
	for _, layer := range image.layers {
		item.Layers = append(item.Layers, blobEntry(layer).name)
	}
	return entry{name: "manifest.json", content: jsonOf(t, []savedImage{item})}
}

func dotted(entries []entry) []entry {
	for i := range entries {
		entries[i].name = "./" + entries[i].name
	}
	return entries
}

func reversed(entries []entry) []entry {
	slices.Reverse(entries)
	return entries
}

func TestRefusesBadArchives(t *testing.T) {
	image := webImage(t)
	good := tarOf(t, image.oci(t, "web:1.0")...)
	with := func(change func(*testImage)) []byte {
		changed := webImage(t)
		change(&changed)
		return tarOf(t, changed.oci(t, "web:1.0")...)
	}
	without := func(unwanted string) []byte {
		return tarOf(t, slices.DeleteFunc(image.oci(t, "web:1.0"), func(e entry) bool { return strings.HasPrefix(e.name, unwanted) })...)
	}
	noLayer := func(entries []entry) []byte {
		return tarOf(t, slices.DeleteFunc(entries, func(e entry) bool { return bytes.Equal(e.content, image.layers[1]) })...)
	}
	layerName := blobEntry(image.layers[0]).name
	sparse := bytes.Buffer{}
	writeSparse(t, &sparse)

	for name, c := range map[string]struct {
		content []byte
		class   error
		says    string
	}{
		"nothing":          {nil, errdefs.ErrInvalidArgument, "the archive is empty"},
		"text":             {[]byte("#!/bin/sh\necho hello\n"), errdefs.ErrInvalidArgument, "neither a tar nor a gzip-compressed tar"},
		"noise":            {bytes.Repeat([]byte("this is not a tar. "), 200), errdefs.ErrInvalidArgument, "neither a tar nor a gzip-compressed tar"},
		"zstd":             {append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 64)...), errdefs.ErrInvalidArgument, "compressed with zstd"},
		"xz":               {append([]byte("\xfd7zXZ\x00"), make([]byte, 64)...), errdefs.ErrInvalidArgument, "compressed with xz"},
		"another tar":      {tarOf(t, entry{name: "README", content: []byte("hello")}), errdefs.ErrInvalidArgument, "has neither index.json nor manifest.json"},
		"truncated":        {good[:len(good)/2], errdefs.ErrInvalidArgument, "truncated"},
		"truncated gzip":   {gzipped(t, good)[:len(gzipped(t, good))-20], errdefs.ErrInvalidArgument, "truncated"},
		"broken gzip":      {broken(gzipped(t, good)), errdefs.ErrInvalidArgument, "damaged"},
		"parent name":      {tarOf(t, entry{name: "../../etc/cron.d/x", content: []byte("x")}), errdefs.ErrInvalidArgument, `"../../etc/cron.d/x", which leads out of it`},
		"hidden parent":    {tarOf(t, entry{name: "a/../../x", content: []byte("x")}), errdefs.ErrInvalidArgument, "leads out of it"},
		"absolute name":    {tarOf(t, entry{name: "/etc/passwd", content: []byte("x")}), errdefs.ErrInvalidArgument, `the absolute name "/etc/passwd"`},
		"link out":         {tarOf(t, entry{name: "a/layer.tar", link: "../../../etc/shadow"}), errdefs.ErrInvalidArgument, "outside of it"},
		"absolute link":    {tarOf(t, entry{name: "layer.tar", link: "/etc/shadow"}), errdefs.ErrInvalidArgument, "outside of it"},
		"hard link out":    {tarOf(t, entry{name: "layer.tar", hardLink: "../shadow"}), errdefs.ErrInvalidArgument, "outside of it"},
		"device":           {tarOf(t, entry{name: "null", mode: tar.TypeChar}), errdefs.ErrInvalidArgument, "neither a file, a folder nor a link"},
		"sparse":           {sparse.Bytes(), errdefs.ErrInvalidArgument, "neither a file, a folder nor a link"},
		"twice":            {tarOf(t, append(image.saved(t, "web:1.0"), entry{name: "a0123/layer.tar", content: image.layers[1]})...), errdefs.ErrInvalidArgument, `"a0123/layer.tar" twice, with different content`},
		"file and link":    {tarOf(t, append(image.saved(t, "web:1.0"), entry{name: "a0123/layer.tar", link: "../b0123/layer.tar"})...), errdefs.ErrInvalidArgument, "twice, with different content"},
		"two links":        {tarOf(t, entry{name: "a", link: "b"}, entry{name: "a", link: "c"}), errdefs.ErrInvalidArgument, "twice, with different content"},
		"other machine":    {with(func(i *testImage) { i.architecture = "arm64" }), errdefs.ErrInvalidArgument, "the image is for arm64, this zone's nodes are amd64"},
		"missing layer":    {noLayer(image.oci(t, "web:1.0")), errdefs.ErrInvalidArgument, "lacks the layer sha256:"},
		"missing layer 2":  {noLayer(image.saved(t, "web:1.0")), errdefs.ErrInvalidArgument, `lacks the layer "b0123/layer.tar"`},
		"missing config":   {without(blobEntry(image.config(t)).name), errdefs.ErrInvalidArgument, "lacks the config"},
		"missing manifest": {without(blobEntry(image.manifest(t)).name), errdefs.ErrInvalidArgument, "lacks the manifest"},
		"wrong digest":     {tarOf(t, replaced(image.oci(t, "web:1.0"), layerName, []byte("something else"))...), errdefs.ErrInvalidArgument, "not the one in its name"},
		"wrong content":    {with(func(i *testImage) { i.diffIDs = []digest.Digest{digest.FromString("x"), digest.FromString("y")} }), errdefs.ErrInvalidArgument, "as in the image's config"},
		"wrong count":      {with(func(i *testImage) { i.diffIDs = []digest.Digest{digest.FromString("x")} }), errdefs.ErrInvalidArgument, "has 2 layers, its config 1"},
		"layer no tar":     {with(func(i *testImage) { i.layers[0] = bytes.Repeat([]byte("no tar "), 200) }), errdefs.ErrInvalidArgument, "damaged"},
		"layer truncated":  {with(func(i *testImage) { i.layers[0] = i.layers[0][:1030] }), errdefs.ErrInvalidArgument, "is truncated"},
		"layer leads out":  {with(func(i *testImage) { i.layers[0] = tarOf(t, entry{name: "../../x", content: []byte("x")}) }), errdefs.ErrInvalidArgument, "leads out of the container"},
		"layer zstd":       {with(func(i *testImage) { i.layers[0] = append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 64)...) }), errdefs.ErrInvalidArgument, "compressed with zstd"},
		"empty list":       {tarOf(t, entry{name: "manifest.json", content: []byte("[]")}), errdefs.ErrInvalidArgument, "has no image"},
		"broken list":      {tarOf(t, entry{name: "manifest.json", content: []byte("{")}), errdefs.ErrInvalidArgument, "is not valid"},
		"broken index":     {tarOf(t, entry{name: "index.json", content: []byte("[]")}), errdefs.ErrInvalidArgument, "not valid JSON"},
		"two images": {
			tarOf(t, append(image.blobs(t), entry{name: "index.json", content: twoImages(t, image)}, blobEntry(other(t).manifest(t)), blobEntry(other(t).config(t)))...),
			errdefs.ErrInvalidArgument, "has 2 images (a:1, b:1)",
		},
		"index that names itself deeply": {deepIndex(t, 7), errdefs.ErrInvalidArgument, "nested more than 4 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			store := openStore(t, t.TempDir(), Limits{})
			imported, err := store.Import(t.Context(), bytes.NewReader(c.content), "")
			if err == nil {
				t.Fatalf("imported %v", imported)
			}
			if !errors.Is(err, c.class) {
				t.Errorf("%q is not of the class %q", err, c.class)
			}
			sentence := wire.Sentence(err)
			if !strings.Contains(sentence, c.says) || strings.Contains(sentence, "\n") {
				t.Errorf("it says %q, which lacks %q", sentence, c.says)
			}
			if left := incomingFiles(t, store); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if size := stored(t, store); size != 0 {
				t.Errorf("left %d bytes of blobs", size)
			}
			if list, err := store.List(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("lists %v, %v", list, err)
			}
		})
	}
}

func TestRefusesWhatIsTooMuch(t *testing.T) {
	content := tarOf(t, webImage(t).oci(t, "web:1.0")...)
	for says, c := range map[string]struct {
		limits  Limits
		content io.Reader
	}{
		"more than 3 entries":                   {Limits{Entries: 3}, bytes.NewReader(content)},
		"the archive expands to more than 4KiB": {Limits{ExpandedBytes: 4096}, bytes.NewReader(gzipped(t, content))},
		"the archive expands to more than 1MiB": {Limits{ExpandedBytes: 1 << 20}, io.MultiReader(bytes.NewReader(content), zeros{})},
	} {
		store := openStore(t, t.TempDir(), c.limits)
		_, err := store.Import(t.Context(), c.content, "")
		if !errors.Is(err, errdefs.ErrResourceExhausted) || !strings.Contains(err.Error(), says) {
			t.Errorf("it says %v, want %q", err, says)
		}
		if left := incomingFiles(t, store); len(left) > 0 || stored(t, store) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestTakesTheNamedImageOfSeveral(t *testing.T) {
	image := webImage(t)
	content := tarOf(t, append(image.blobs(t), entry{name: "index.json", content: twoImages(t, image)}, blobEntry(other(t).manifest(t)), blobEntry(other(t).config(t)))...)
	store := openStore(t, t.TempDir(), Limits{})
	imported, err := store.Import(t.Context(), bytes.NewReader(content), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(other(t).manifest(t)).String(); imported.GetDigest() != want || imported.GetName() != "b:1" {
		t.Errorf("imported %v, want %s", imported, want)
	}
	if list, err := store.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("lists %v, %v", list, err)
	}
}

func TestImageWithoutNameOrCommand(t *testing.T) {
	image := webImage(t)
	image.command = []string{""} // An engine takes that for none.
	content := tarOf(t, image.oci(t, "")...)
	store := openStore(t, t.TempDir(), Limits{})
	if _, err := store.Import(t.Context(), bytes.NewReader(content), ""); err == nil || !strings.Contains(err.Error(), "has no name for its image") {
		t.Errorf("without any name it says %v", err)
	}
	if _, err := store.Import(t.Context(), bytes.NewReader(content), "No Name"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("with a bad name it says %v", err)
	}
	if _, err := store.Import(t.Context(), bytes.NewReader(content), "web:1"); err != nil {
		t.Fatal(err)
	}
	_, config, err := store.Resolve(t.Context(), "web:1")
	if err != nil || config.HasCommand() {
		t.Errorf("config %+v, %v; it has no command", config, err)
	}
}

// other is an image that shares its layers with webImage.
func other(t *testing.T) testImage {
	image := webImage(t)
	image.command = []string{"/bin/web", "--other"}
	return image
}

func twoImages(t *testing.T, image testImage) []byte {
	a := describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t))
	a.Annotations = map[string]string{ocispec.AnnotationRefName: "a:1"}
	b := describeBlob(distribution.MediaTypeOCIManifest, other(t).manifest(t))
	b.Annotations = map[string]string{ocispec.AnnotationRefName: "b:1"}
	return indexOf(t, a, b)
}

func deepIndex(t *testing.T, depth int) []byte {
	image := webImage(t)
	entries := image.blobs(t)
	top := describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t))
	for range depth {
		index := indexOf(t, top)
		entries = append(entries, blobEntry(index))
		top = describeBlob(ocispec.MediaTypeImageIndex, index)
	}
	return tarOf(t, append(entries, entry{name: "index.json", content: indexOf(t, top)})...)
}

func replaced(entries []entry, name string, content []byte) []entry {
	for i := range entries {
		if entries[i].name == name {
			entries[i].content = content
		}
	}
	return entries
}

func broken(content []byte) []byte {
	content = slices.Clone(content)
	for i := len(content) / 2; i < len(content)/2+8; i++ {
		content[i] ^= 0x5a
	}
	return content
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// writeSparse writes an old GNU sparse entry that claims to be 8 GiB large, which archive/tar itself does not write.
func writeSparse(t *testing.T, out io.Writer) {
	t.Helper()
	var block [512]byte
	copy(block[:], "hole")
	copy(block[100:], "0000644\x000000000\x000000000\x00")
	copy(block[124:], "00000000000\x0000000000000\x00")
	block[156] = tar.TypeGNUSparse
	copy(block[257:], "ustar  \x00")
	copy(block[386:], "00000000000\x0000000000000\x00")
	copy(block[483:], "77777777777\x00")
	copy(block[148:], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	for i, at := 5, 148; i >= 0; i-- {
		block[at+i] = byte('0' + sum&7)
		sum >>= 3
	}
	block[154], block[155] = 0, ' '
	if _, err := out.Write(append(block[:], make([]byte, 1024)...)); err != nil {
		t.Fatal(err)
	}
}
