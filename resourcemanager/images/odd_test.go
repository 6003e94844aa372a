package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/wire"
)

// bothWays imports an image as archives of both kinds and pushes it, each to an empty store.
func bothWays(t *testing.T, limits Limits, image testImage, check func(t *testing.T, way string, store *Store, err error)) {
	t.Helper()
	for way, content := range map[string][]byte{
		"docker save":        tarOf(t, image.saved(t, "web:1")...),
		"docker save | gzip": gzipped(t, tarOf(t, image.saved(t, "web:1")...)),
		"OCI":                tarOf(t, image.oci(t, "web:1")...),
	} {
		store := openStore(t, t.TempDir(), limits)
		_, err := store.Import(t.Context(), bytes.NewReader(content), "web:1")
		check(t, way, store, err)
		if left := incomingFiles(t, store); len(left) > 0 {
			t.Errorf("%s: left behind: %q", way, left)
		}
	}
	store := openStore(t, t.TempDir(), limits)
	pushBlobs(t, store, "web", image)
	m := distribution.Manifest{Digest: digest.FromBytes(image.manifest(t)), MediaType: distribution.MediaTypeOCIManifest, Content: image.manifest(t)}
	check(t, "push", store, store.repositories().PutManifest(t.Context(), "web", "1", m))
}

func taken(t *testing.T, way string, store *Store, err error) {
	t.Helper()
	if err == nil {
		_, _, err = store.Resolve(t.Context(), "web:1")
	}
	if err != nil {
		t.Errorf("%s: %v", way, err)
	}
}

// refused requires a refusal after which nothing is left.
func refused(class error, says string) func(*testing.T, string, *Store, error) {
	return func(t *testing.T, way string, store *Store, err error) {
		t.Helper()
		if !errors.Is(err, class) || !strings.Contains(wire.Sentence(err), says) {
			t.Errorf("%s: it says %v, which is not %q with %q", way, err, class, says)
		}
		if list := names(t, store); len(list) > 0 {
			t.Errorf("%s: it has %q", way, list)
		}
	}
}

func TestLayersOfAnyRatioAreTaken(t *testing.T) {
	image := webImage(t)
	// As `useradd -u 400000` leaves it: a file of zeros that gzip makes a thousand times smaller.
	image.layers = append(image.layers, gzipped(t, tarOf(t, entry{name: "var/log/lastlog", content: make([]byte, 70<<20)})))
	bothWays(t, Limits{}, image, taken)
}

func TestALayerWithoutAByteIsTaken(t *testing.T) {
	image := webImage(t)
	image.layers = append(image.layers, []byte{}, image.layers[0], []byte{})
	image.diffIDs = []digest.Digest{digest.FromBytes(image.layers[0]), digest.FromBytes(image.layers[1]), emptyDigest, digest.FromBytes(image.layers[0]), emptyDigest}
	bothWays(t, Limits{}, image, taken)
	image.layers[2], image.layers[4] = gzipped(t, nil), tarOf(t)
	image.diffIDs[4] = digest.FromBytes(tarOf(t))
	bothWays(t, Limits{}, image, taken)
}

const emptyDigest = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

func TestTheWorkOfOneImageIsBounded(t *testing.T) {
	zeros := gzipped(t, tarOf(t, entry{name: "zeros", content: make([]byte, 100<<10)}))
	many := webImage(t)
	for range 125 {
		many.layers = append(many.layers, zeros)
	}
	bothWays(t, Limits{}, many, refused(errdefs.ErrResourceExhausted, "the image has 127 layers, and an engine accepts at most 125"))
	many.layers = many.layers[:20]
	bothWays(t, Limits{ExpandedBytes: 1 << 20}, many, refused(errdefs.ErrResourceExhausted, "the image expands to more than 1MiB, which is the limit"))

	var names []entry
	for n := range 200 {
		names = append(names, entry{name: fmt.Sprint(n)})
	}
	files := webImage(t)
	files.layers = append(files.layers, tarOf(t, names...), gzipped(t, tarOf(t, names...)))
	bothWays(t, Limits{LayerEntries: 300}, files, refused(errdefs.ErrResourceExhausted, "the image's layers have more than 300 entries, which is the limit"))
	bothWays(t, Limits{LayerEntries: 405}, files, taken) // A folder that is not an entry counts too: etc.

	sparse := webImage(t)
	sparse.layers = append(sparse.layers, claiming(t, 1<<40))
	bothWays(t, Limits{}, sparse, refused(errdefs.ErrResourceExhausted, "the image expands to more than 32GiB"))
}

// claiming is a layer with a file that says it is of a size, and is cut off behind its header.
func claiming(t *testing.T, size int64) []byte {
	var out bytes.Buffer
	if err := tar.NewWriter(&out).WriteHeader(&tar.Header{Name: "huge", Size: size, Typeflag: tar.TypeReg, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAManifestNamesAFewHundredThings(t *testing.T) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: distribution.MediaTypeOCIManifest, Config: describeBlob(dockerConfig, nil)}
	for range maxNamed + 1 {
		m.Layers = append(m.Layers, describeBlob(dockerLayer, nil))
	}
	_, err := parseManifest(jsonOf(t, m), "")
	wantSays(t, err, errdefs.ErrResourceExhausted, "has 513 layers or manifests; the limit is 512")
}

// cancelling ends the context when the reader comes to a place.
type cancelling struct {
	io.Reader
	cancel context.CancelFunc
}

func (c cancelling) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		c.cancel()
	}
	return n, err
}

func TestTheWorkEndsWithTheCaller(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	content := tarOf(t, webImage(t).oci(t, "web:1")...)
	_, err := store.Import(ctx, cancelling{bytes.NewReader(content), cancel}, "")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it says %v", err)
	}
	if left := incomingFiles(t, store); len(left) > 0 || len(names(t, store)) > 0 || store.quotas.incoming != 0 {
		t.Errorf("left behind: %q, %d bytes on their way", left, store.quotas.incoming)
	}
	image := webImage(t)
	pushBlobs(t, store, "web", image)
	m := distribution.Manifest{Digest: digest.FromBytes(image.manifest(t)), MediaType: distribution.MediaTypeOCIManifest, Content: image.manifest(t)}
	if err := store.repositories().PutManifest(ctx, "web", "1", m); !errors.Is(err, context.Canceled) {
		t.Errorf("a push says %v", err)
	}
}

func TestArchitecturesHaveSeveralNames(t *testing.T) {
	for _, name := range []string{"amd64", "x86_64", "x86-64", "AMD64", ""} {
		image := webImage(t)
		image.architecture = name
		bothWays(t, Limits{}, image, taken)
	}
	for _, name := range []string{"aarch64", "arm64"} {
		image := webImage(t)
		image.architecture = name
		bothWays(t, Limits{}, image, refused(errdefs.ErrInvalidArgument, "the image is for arm64, this zone's nodes are amd64"))
	}
	image, foreign := webImage(t), other(t)
	foreign.architecture = "aarch64"
	index := indexOf(t,
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, foreign.manifest(t)), "linux", "aarch64"),
		withPlatform(describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t)), "linux", "x86_64"),
	)
	top := describeBlob(ocispec.MediaTypeImageIndex, index)
	store := openStore(t, t.TempDir(), Limits{})
	content := tarOf(t, append(append(image.blobs(t), foreign.blobs(t)[:2]...), blobEntry(index), entry{name: "index.json", content: indexOf(t, top)})...)
	imported, err := store.Import(t.Context(), bytes.NewReader(content), "web:1")
	if err != nil || imported.GetDigest() != digest.FromBytes(image.manifest(t)).String() {
		t.Errorf("imported %v, %v", imported, err)
	}
}

func TestThePlainKindOfMachineIsTakenBeforeSpecialOnes(t *testing.T) {
	plain, special := webImage(t), other(t)
	v3 := withPlatform(describeBlob(distribution.MediaTypeOCIManifest, special.manifest(t)), "linux", "amd64")
	v3.Platform.Variant = "v3"
	index := indexOf(t, v3, withPlatform(describeBlob(distribution.MediaTypeOCIManifest, plain.manifest(t)), "linux", "amd64"))
	store := openStore(t, t.TempDir(), Limits{})
	content := tarOf(t, append(append(plain.blobs(t), special.blobs(t)[:2]...), blobEntry(index),
		entry{name: "index.json", content: indexOf(t, describeBlob(ocispec.MediaTypeImageIndex, index))})...)
	imported, err := store.Import(t.Context(), bytes.NewReader(content), "web:1")
	if err != nil || imported.GetDigest() != digest.FromBytes(plain.manifest(t)).String() {
		t.Errorf("imported %v, %v", imported, err)
	}
}

// besides is what stands beside images: each with its descriptor and its blobs.
func besides(t *testing.T, about testImage) map[string]struct {
	descriptor ocispec.Descriptor
	blobs      [][]byte
} {
	type beside = struct {
		descriptor ocispec.Descriptor
		blobs      [][]byte
	}
	content := []byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`)
	made := func(configType string, config []byte, layerType string, change func(*ocispec.Manifest)) beside {
		m := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: distribution.MediaTypeOCIManifest,
			Config: describeBlob(configType, config), Layers: []ocispec.Descriptor{describeBlob(layerType, content)},
		}
		change(&m)
		written := jsonOf(t, m)
		return beside{describeBlob(distribution.MediaTypeOCIManifest, written), [][]byte{written, config, content}}
	}
	nothing := func(*ocispec.Manifest) {}
	subject := describeBlob(distribution.MediaTypeOCIManifest, about.manifest(t))
	all := map[string]beside{
		"signature":              made(ocispec.MediaTypeEmptyJSON, []byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json", func(m *ocispec.Manifest) { m.Subject = &subject }),
		"artifact":               made(ocispec.MediaTypeEmptyJSON, []byte("{}"), "text/spdx+json", func(m *ocispec.Manifest) { m.ArtifactType = "application/spdx+json" }),
		"old signature":          made(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:1"]}}`), "application/vnd.dev.cosign.simplesigning.v1+json", nothing),
		"chart":                  made("application/vnd.cncf.helm.config.v1+json", []byte("{}"), "application/vnd.cncf.helm.chart.content.v1.tar+gzip", nothing),
		"empty config":           made(ocispec.MediaTypeImageConfig, nil, ocispec.MediaTypeImageLayer, func(m *ocispec.Manifest) { m.ArtifactType = "application/x" }),
		"config that is no JSON": made(ocispec.MediaTypeImageConfig, []byte("not JSON"), ocispec.MediaTypeImageLayer, nothing),
		"no config at all":       made(ocispec.MediaTypeImageConfig, nil, ocispec.MediaTypeImageLayer, nothing),
	}
	attested := made(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":["sha256:1"]}}`), "application/vnd.in-toto+json", nothing)
	attested.descriptor = withPlatform(attested.descriptor, "unknown", "unknown")
	all["attestation"] = attested
	said := made(ocispec.MediaTypeImageConfig, []byte(`{}`), "application/vnd.in-toto+json", nothing)
	said.descriptor.Annotations = map[string]string{attestation: "attestation-manifest"}
	all["attestation that says so"] = said
	foreign := beside{describeBlob("application/octet-stream", content), [][]byte{content}}
	all["something else"] = foreign
	nested := indexOf(t, attested.descriptor, all["signature"].descriptor)
	all["index of such"] = beside{describeBlob(ocispec.MediaTypeImageIndex, nested), slices.Concat([][]byte{nested}, attested.blobs, all["signature"].blobs)}
	return all
}

func TestWhatIsNoImageIsPassedOver(t *testing.T) {
	image := webImage(t)
	named := describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t))
	named.Annotations = map[string]string{ocispec.AnnotationRefName: "web:1"}
	for what, beside := range besides(t, image) {
		t.Run(what, func(t *testing.T) {
			files := image.blobs(t)
			for _, blob := range beside.blobs {
				if e := blobEntry(blob); !slices.ContainsFunc(files, func(f entry) bool { return f.name == e.name }) {
					files = append(files, e)
				}
			}
			alone := named
			alone.Annotations = nil
			index := indexOf(t, beside.descriptor, withPlatform(alone, "linux", "amd64"), beside.descriptor)
			nested := describeBlob(ocispec.MediaTypeImageIndex, index)
			nested.Annotations = named.Annotations
			for way, top := range map[string][]byte{
				"beside it": indexOf(t, beside.descriptor, named), "in its index": indexOf(t, nested), "nothing said": indexOf(t, named, beside.descriptor),
			} {
				store := openStore(t, t.TempDir(), Limits{})
				content := tarOf(t, append(slices.Clone(files), blobEntry(index), entry{name: "index.json", content: top})...)
				imported, err := store.Import(t.Context(), bytes.NewReader(content), "")
				if err != nil || imported.GetName() != "web:1" || imported.GetDigest() != named.Digest.String() {
					t.Errorf("%s: imported %v, %v", way, imported, err)
				}
			}
			store := openStore(t, t.TempDir(), Limits{})
			_, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, append(slices.Clone(files), entry{name: "index.json", content: indexOf(t, beside.descriptor)})...)), "web:1")
			wantSays(t, err, errdefs.ErrInvalidArgument, "the archive has no image")

			if what == "something else" || what == "index of such" {
				return // No registry takes a blob for a manifest.
			}
			pushBlobs(t, store, "web", image)
			for _, blob := range beside.blobs[1:] {
				pushBlob(t, store, "web", blob)
			}
			byDigest := func(content []byte) string { return "/v2/web/manifests/" + digest.FromBytes(content).String() }
			putManifest(t, store, byDigest(image.manifest(t)), image.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
			putManifest(t, store, byDigest(beside.blobs[0]), beside.blobs[0], distribution.MediaTypeOCIManifest).want(t, 201, "")
			putManifest(t, store, "/v2/web/manifests/1", index, distribution.MediaTypeOCIIndex).want(t, 201, "")
			if sum, _, err := store.Resolve(t.Context(), "web:1"); err != nil || sum != named.Digest.String() {
				t.Errorf("pushed, it resolves to %s, %v", sum, err)
			}
			if what != "attestation" && what != "attestation that says so" {
				putManifest(t, store, "/v2/web/manifests/2", beside.blobs[0], distribution.MediaTypeOCIManifest).want(t, 400, "not")
			}
		})
	}
}

func TestAnImageOfSeveralIsChosen(t *testing.T) {
	a, b := webImage(t), other(t)
	described := func(image testImage, ref string) ocispec.Descriptor {
		d := describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t))
		if ref != "" {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
		}
		return d
	}
	oci := func(refA, refB string) []byte {
		return tarOf(t, append(append(a.blobs(t), b.blobs(t)[:2]...), entry{name: "index.json", content: indexOf(t, described(a, refA), described(b, refB))})...)
	}
	save := func(namesA, namesB []string) []byte {
		config := entry{name: "a.json", content: a.config(t)}
		item := savedImage{Config: config.name, RepoTags: namesA, Layers: []string{"0", "1"}}
		second := savedImage{Config: "b.json", RepoTags: namesB, Layers: item.Layers}
		return tarOf(t, config, entry{name: "b.json", content: b.config(t)}, entry{name: "0", content: a.layers[0]}, entry{name: "1", content: a.layers[1]},
			entry{name: "manifest.json", content: jsonOf(t, []savedImage{item, second})})
	}
	second := b.config(t)
	for _, c := range []struct {
		content           []byte
		name, calls, says string
	}{
		{oci("v1", "v2"), "", "", "the archive has 2 images (v1, v2); add the name of one after the file, as in `mammoth image push FILE v1` or `mammoth image push FILE web:v1`"},
		{oci("v1", "v2"), "v2", "v2:latest", ""},
		{oci("v1", "v2"), "web:v2", "web:v2", ""},
		{oci("v1", "v2"), "web:v3", "", `the archive has 2 images (v1, v2), and "web:v3" does not identify one`},
		{oci("v1", "v2"), "web", "", `and "web" does not identify one`},
		{oci("", ""), "web:1", "", "without a name @sha256:"},
		{oci("", ""), "web:1@" + digest.FromBytes(second).String(), "web:1", ""},
		{oci("", ""), "web:1@" + digest.FromBytes(b.manifest(t)).String(), "web:1", ""},
		{oci("a:1", "b:2"), "", "", "the archive has 2 images (a:1, b:2); add the name of one after the file, as in `mammoth image push FILE a:1`"},
		{oci("a:1", "b:2"), "b:2", "b:2", ""},
		{oci("a:1", "b:2"), "web:2", "web:2", ""},
		{oci("\x1b[31mred", "v2"), "", "", `("\x1b[31mred", v2)`},
		{save([]string{"web:v1"}, []string{"web:v2"}), "", "", "has 2 images (web:v1, web:v2)"},
		{save([]string{"web:v1"}, []string{"web:v2"}), "v2", "", `"v2" does not identify one`},
		{save([]string{"web:v1"}, []string{"web:v2", "web:latest"}), "web", "web:latest", ""},
		{save([]string{"web:v1"}, []string{"web:v2"}), "other:v2", "other:v2", ""},
		{save([]string{"a:1"}, []string{"b:1"}), "c:1", "", `"c:1" does not identify one`},
		{save([]string{"a:1"}, []string{"a:1"}), "a:1", "", "), and \"a:1\" does not identify one; add the name of one after the file, as in `mammoth image push FILE a:1@sha256:"},
		{save([]string{"a:1"}, []string{"a:1"}), "a:1@" + digest.FromBytes(second).String(), "a:1", ""},
		{oci("v1", "v1"), "v1", "", "does not identify one; add the name of one after the file, as in `mammoth image push FILE web:1.0@sha256:"},
		{save([]string{"a:1"}, nil), "c:2@" + digest.FromBytes(second).String(), "c:2", ""},
	} {
		store := openStore(t, t.TempDir(), Limits{})
		imported, err := store.Import(t.Context(), bytes.NewReader(c.content), c.name)
		if c.says != "" {
			wantSays(t, err, errdefs.ErrInvalidArgument, c.says)
			continue
		}
		if err != nil || imported.GetName() != c.calls {
			t.Errorf("%q: imported %v, %v", c.name, imported, err)
			continue
		}
		if _, config, err := store.Resolve(t.Context(), c.calls); err != nil || !slices.Equal(config.Entrypoint, b.command) {
			t.Errorf("%q is %v, %v", c.name, config, err)
		}
	}
}

func TestWhatAnEngineDoesNotUnpackIsRefused(t *testing.T) {
	file := func(name string) entry { return entry{name: name, content: []byte("x")} }
	dir := func(name string) entry { return entry{name: name, mode: tar.TypeDir} }
	for says, entries := range map[string][]entry{
		`has "etc/a" twice`:                         {file("etc/a"), file("etc/a")},
		`has "./a" twice`:                           {file("a"), file("./a")},
		`has "d/" twice`:                            {dir("d/"), dir("d/")},
		`has "l" twice`:                             {{name: "l", link: "x"}, file("l")},
		`has "a/b", but "/a"`:                       {file("a"), file("a/b")},
		`links "h" to "nowhere"`:                    {{name: "h", hardLink: "nowhere"}},
		`links "h" to "later"`:                      {{name: "h", hardLink: "later"}, file("later")},
		`links "h" to the folder "d"`:               {dir("d"), {name: "h", hardLink: "d"}},
		`"gone" and deletes it with ".wh.gone"`:     {file("gone"), file(".wh.gone")},
		`has "d/.wh.", a deletion without a name`:   {dir("d"), file("d/.wh.")},
		`has ".wh..", a deletion without a name`:    {file(".wh..")},
		`has "d/.wh...", a deletion without a name`: {dir("d"), file("d/.wh...")},
		`a name with an element of 300 bytes`:       {file("d/" + strings.Repeat("n", 300))},
		`a name of 4219 bytes`:                      {file(strings.Repeat(strings.Repeat("n", 200)+"/", 20) + strings.Repeat("m", 199))},
	} {
		image := webImage(t)
		image.layers = append(image.layers, tarOf(t, entries...))
		bothWays(t, Limits{}, image, refused(errdefs.ErrInvalidArgument, says))
	}
	fine := webImage(t)
	fine.layers = append(fine.layers,
		tarOf(t, file("a"), file("/a"), dir("r"), file("r/f"), entry{name: "s", link: "r"}, entry{name: "h", hardLink: "s/f"}, entry{name: "i", hardLink: "/a"}),
		tarOf(t, file("a"), file(".wh.h"), file("h"), dir("d"), file("d/x"), file("d/.wh..wh..opq"), file(".wh..wh.plnk")),
	)
	bothWays(t, Limits{}, fine, taken)
}

func TestSettingsWithWhichNothingStartsAreRefused(t *testing.T) {
	passwd := tarOf(t, entry{name: "etc/", mode: tar.TypeDir}, entry{name: "etc/passwd", content: []byte("root:x:0:0::/:\nweb:x:7:7::/:\n")}, entry{name: "etc/group", content: []byte("root:x:0:\nstaff:x:9:\n")})
	for says, set := range map[string]func(*ocispec.ImageConfig){
		`the image's WORKDIR is "rel/dir", which is not an absolute path`:                  func(c *ocispec.ImageConfig) { c.WorkingDir = "rel/dir" },
		`the image's WORKDIR is "/a\x00b", which contains a NUL`:                           func(c *ocispec.ImageConfig) { c.WorkingDir = "/a\x00b" },
		`the image's WORKDIR has "nnnn`:                                                    func(c *ocispec.ImageConfig) { c.WorkingDir = "/" + strings.Repeat("n", 256) },
		`the image's USER is "nobody", but the image's /etc/passwd has no user "nobody"`:   func(c *ocispec.ImageConfig) { c.User = "nobody" },
		`the image's USER is "web:wheel", but the image's /etc/group has no group "wheel"`: func(c *ocispec.ImageConfig) { c.User = "web:wheel" },
		`the image's USER is "web:wheel:7", but the image's /etc/group has no group`:       func(c *ocispec.ImageConfig) { c.User = "web:wheel:7" },
		`the image's USER is "-1", but the id of a user must be 0 to 2147483647`:           func(c *ocispec.ImageConfig) { c.User = "-1" },
		`the image's USER is "0:4294967296", but the id of a group must be`:                func(c *ocispec.ImageConfig) { c.User = "0:4294967296" },
		`the image's USER is "99999999999999999999", but the id of a user must be`:         func(c *ocispec.ImageConfig) { c.User = "99999999999999999999" },
		`the image's ENV has "=x", which is not of the form NAME=VALUE`:                    func(c *ocispec.ImageConfig) { c.Env = []string{"A=1", "=x"} },
		`the image's ENV has "PATH", which is not of the form NAME=VALUE`:                  func(c *ocispec.ImageConfig) { c.Env = []string{"PATH"} },
		`the image's ENV has "", which is not of the form NAME=VALUE`:                      func(c *ocispec.ImageConfig) { c.Env = []string{""} },
		`the image's ENV has "A=\x00", which contains a NUL`:                               func(c *ocispec.ImageConfig) { c.Env = []string{"A=\x00"} },
		`of 131074 bytes; the kernel's limit is 131071`:                                    func(c *ocispec.ImageConfig) { c.Env = []string{"A=" + strings.Repeat("x", 131072)} },
		`the image's CMD has "a\x00b", which contains a NUL`:                               func(c *ocispec.ImageConfig) { c.Cmd = []string{"a\x00b"} },
		`the image's ENTRYPOINT, CMD and ENV are 1100000 bytes long together`: func(c *ocispec.ImageConfig) {
			c.Entrypoint = []string{}
			for range 11 {
				c.Cmd = append(c.Cmd, strings.Repeat("x", 100_000))
			}
		},
		`the image's STOPSIGNAL is "SIGFOO", which is not a signal`:   func(c *ocispec.ImageConfig) { c.StopSignal = "SIGFOO" },
		`the image's STOPSIGNAL is "0", which is not a signal`:        func(c *ocispec.ImageConfig) { c.StopSignal = "0" },
		`the image's STOPSIGNAL is "65", which is not a signal`:       func(c *ocispec.ImageConfig) { c.StopSignal = "65" },
		`the image's STOPSIGNAL is "RTMIN+16", which is not a signal`: func(c *ocispec.ImageConfig) { c.StopSignal = "RTMIN+16" },
		`the image's VOLUME has "/", which would hide`:                func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"/": {}} },
		`the image's VOLUME has "/x/../", which would hide`:           func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"/x/../": {}} },
		`the image's VOLUME has "/proc/sys", which would hide`:        func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"/proc/sys": {}} },
		`the image's VOLUME has "/dev", which would hide`:             func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"/dev": {}} },
		`the image's VOLUME has "", which is not a path`:              func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"": {}} },
		`the image's EXPOSE has "http", which is not a port`:          func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"http": {}} },
		`the image's EXPOSE has "0/tcp", which is not a port`:         func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"0/tcp": {}} },
		`the image's EXPOSE has "70000", which is not a port`:         func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"70000": {}} },
		`the image's EXPOSE has "80/foo", which is not a port`:        func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"80/foo": {}} },
		`the image's EXPOSE has "90-80/tcp", which is not a port`:     func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"90-80/tcp": {}} },
		`the image's VOLUME has more than 1024 paths`: func(c *ocispec.ImageConfig) {
			c.Volumes = map[string]struct{}{}
			for n := range 1025 {
				c.Volumes[fmt.Sprintf("/%d", n)] = struct{}{}
			}
		},
		`the image's EXPOSE has more than 1024 ports`: func(c *ocispec.ImageConfig) { c.ExposedPorts = map[string]struct{}{"1-65535/tcp": {}} },
	} {
		image := webImage(t)
		image.layers, image.set = append(image.layers, passwd), set
		bothWays(t, Limits{}, image, refused(errdefs.ErrInvalidArgument, says))
	}
}

func TestSettingsThatEnginesTakeAreTaken(t *testing.T) {
	for name, set := range map[string]func(*ocispec.ImageConfig){
		"numbers":  func(c *ocispec.ImageConfig) { c.User = "1000:2147483647" },
		"no group": func(c *ocispec.ImageConfig) { c.User = "0:" },
		"no user":  func(c *ocispec.ImageConfig) { c.User = ":0" },
		"signals":  func(c *ocispec.ImageConfig) { c.StopSignal = "sigquit" },
		"number":   func(c *ocispec.ImageConfig) { c.StopSignal = "37" },
		"realtime": func(c *ocispec.ImageConfig) { c.StopSignal = "SIGRTMIN+3" },
		"alias":    func(c *ocispec.ImageConfig) { c.StopSignal = "CLD" },
		"volume":   func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{"data": {}, "/var/lib/x": {}} },
		"env":      func(c *ocispec.ImageConfig) { c.Env = []string{"A=", "B=c=d", "C D=e", "A=2"} },
	} {
		image := webImage(t)
		image.set = set
		bothWays(t, Limits{}, image, func(t *testing.T, way string, store *Store, err error) { taken(t, name+", "+way, store, err) })
	}
	ports, err := exposedPorts([]string{"80", "8000-8002/udp", "80/TCP", "9/sctp"})
	if want := []string{"9/sctp", "80/tcp", "8000/udp", "8001/udp", "8002/udp"}; err != nil || !slices.Equal(ports, want) {
		t.Errorf("ports %q, %v; want %q", ports, err, want)
	}
}

// TestUsersAreLookedUpInTheTopmostFile lays layers over each other.
func TestUsersAreLookedUpInTheTopmostFile(t *testing.T) {
	etc := entry{name: "etc/", mode: tar.TypeDir}
	web, api := entry{name: "etc/passwd", content: []byte("web:x:7:7::/:\n")}, entry{name: "/etc/passwd", content: []byte("api:x:8:8::/:\n")}
	for name, c := range map[string]struct {
		layers [][]entry
		lacks  bool
	}{
		"below":              {[][]entry{{etc, web}, {{name: "x"}}}, false},
		"replaced":           {[][]entry{{etc, web}, {etc, api}}, true},
		"replacing":          {[][]entry{{etc, api}, {etc, web}}, false},
		"deleted":            {[][]entry{{etc, web}, {etc, {name: "etc/.wh.passwd"}}}, true},
		"folder deleted":     {[][]entry{{etc, web}, {{name: ".wh.etc"}}}, true},
		"root hidden":        {[][]entry{{etc, web}, {{name: ".wh..wh..opq"}}}, false}, // Engines show what is below all the same.
		"folder hidden":      {[][]entry{{etc, web}, {etc, {name: "etc/.wh..wh..opq"}}}, true},
		"hidden, then there": {[][]entry{{etc, api}, {etc, {name: "etc/.wh..wh..opq"}, web}}, false},
		"there, then hidden": {[][]entry{{etc, api}, {etc, web, {name: "etc/.wh..wh..opq"}}}, false},
		"a link":             {[][]entry{{etc, {name: "etc/passwd", link: "../run/passwd"}}}, false},
		"folder is a link":   {[][]entry{{{name: "etc", link: "run"}}}, false},
		"too large":          {[][]entry{{etc, {name: "etc/passwd", content: make([]byte, maxAccounts+1)}}}, false},
		"nowhere":            {nil, true},
	} {
		image := webImage(t)
		image.layers = image.layers[:1]
		for _, entries := range c.layers {
			image.layers = append(image.layers, tarOf(t, entries...))
		}
		image.set = func(config *ocispec.ImageConfig) { config.User = "web" }
		bothWays(t, Limits{}, image, func(t *testing.T, way string, store *Store, err error) {
			if c.lacks {
				refused(errdefs.ErrInvalidArgument, `has no user "web"`)(t, name+", "+way, store, err)
			} else {
				taken(t, name+", "+way, store, err)
			}
		})
	}
}

func TestAnImageIsLookedAtBeforeItIsDeployedByItsDigest(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	image := webImage(t)
	image.set = func(c *ocispec.ImageConfig) { c.StopSignal = "SIGFOO" }
	pushBlobs(t, store, "web", image)
	sum := digest.FromBytes(image.manifest(t)).String()
	putManifest(t, store, "/v2/web/manifests/"+sum, image.manifest(t), distribution.MediaTypeOCIManifest).want(t, 201, "")
	_, _, err := store.Resolve(t.Context(), "web@"+sum)
	wantSays(t, err, errdefs.ErrInvalidArgument, "STOPSIGNAL")
}

func TestAnIndexThatLeadsToTooMuchIsRefused(t *testing.T) {
	image := webImage(t)
	entries := image.blobs(t)
	var manifests []ocispec.Descriptor
	for n := range 20 {
		// Each says nothing of its platform, is no image, and is nearly as large as may be.
		content := jsonOf(t, map[string]any{
			"schemaVersion": 2, "mediaType": distribution.MediaTypeOCIManifest, "artifactType": "x",
			"config": describeBlob(ocispec.MediaTypeEmptyJSON, []byte("{}")), "annotations": map[string]string{"n": fmt.Sprint(n), "pad": strings.Repeat("x", 4<<20-1000)},
		})
		entries = append(entries, blobEntry(content))
		manifests = append(manifests, describeBlob(distribution.MediaTypeOCIManifest, content))
	}
	manifests = append(manifests, describeBlob(distribution.MediaTypeOCIManifest, image.manifest(t)))
	index := indexOf(t, manifests...)
	top := describeBlob(ocispec.MediaTypeImageIndex, index)
	store := openStore(t, t.TempDir(), Limits{})
	_, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, append(entries, blobEntry(index), entry{name: "index.json", content: indexOf(t, top)})...)), "web:1")
	wantSays(t, err, errdefs.ErrResourceExhausted, "the archive's manifests and configs are more than 64 MiB, which is the limit")
}

func TestARegistryRefusesALargeManifest(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	putManifest(t, store, "/v2/web/manifests/1", make([]byte, 4<<20+1), distribution.MediaTypeOCIManifest).want(t, 413, "the manifest is larger than 4 MiB")
}

func TestAUserOfAManifestIsLookedUpInTheImage(t *testing.T) {
	image := webImage(t)
	image.layers = append(image.layers, tarOf(t, entry{name: "etc/passwd", content: []byte("web:x:7:7::/:\n")}))
	bothWays(t, Limits{}, image, func(t *testing.T, way string, store *Store, err error) {
		taken(t, way, store, err)
		_, config, err := store.Resolve(t.Context(), "web:1")
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"", "web", "web:9", "7"} {
			if err := config.CheckUser(user); err != nil {
				t.Errorf("%s: %v", way, err)
			}
		}
		wantSays(t, config.CheckUser("api"), errdefs.ErrInvalidArgument, `user is "api", but the image's /etc/passwd has no user "api"`)
		wantSays(t, config.CheckUser("web:staff"), errdefs.ErrInvalidArgument, `user is "web:staff", but the image's /etc/group has no group "staff"`)
		// After a restart the layers were not looked at: an engine will tell.
		again := openStore(t, store.dir, Limits{})
		if _, config, err := again.Resolve(t.Context(), "web:1"); err != nil || config.CheckUser("api") != nil {
			t.Errorf("%s: after a restart: %v", way, err)
		}
	})
}

func TestAWorkingDirOfAManifestIsLookedUpInTheImage(t *testing.T) {
	image := webImage(t)
	image.layers = append(image.layers, tarOf(t, entry{name: "hello", content: []byte("x")}, entry{name: "link", link: "hello"}, aFolder("srv")))
	bothWays(t, Limits{}, image, func(t *testing.T, way string, store *Store, err error) {
		taken(t, way, store, err)
		_, config, err := store.Resolve(t.Context(), "web:1")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"", "/", "/srv", "/not/there", "/proc/self"} {
			if err := config.CheckWorkingDir(dir); err != nil {
				t.Errorf("%s: %v", way, err)
			}
		}
		for dir, says := range map[string]string{
			"/hello":     `workingDir is "/hello", but "/hello" is a file in the image`,
			"/hello/x":   `workingDir is "/hello/x", but "/hello" is a file in the image`,
			"/link":      `workingDir is "/link", but "/hello" is a file in the image`,
			"/etc/hosts": `workingDir is "/etc/hosts", but "/etc/hosts" is a file in the image or in every container`,
			"/dev/null":  `workingDir is "/dev/null", where every container has a device`,
			"/sys/x":     `workingDir is "/sys/x", where there is no folder`,
		} {
			wantSays(t, config.CheckWorkingDir(dir), errdefs.ErrInvalidArgument, says)
		}
		// After a restart the layers were not looked at: an engine will tell.
		again := openStore(t, store.dir, Limits{})
		if _, config, err := again.Resolve(t.Context(), "web:1"); err != nil || config.CheckWorkingDir("/hello") != nil {
			t.Errorf("%s: after a restart: %v", way, err)
		}
	})
}

func TestAListOfManyImagesIsRefused(t *testing.T) {
	image := webImage(t)
	config := entry{name: "c.json", content: image.config(t)}
	item := savedImage{Config: config.name, Layers: []string{"0", "1"}}
	layers := []entry{config, {name: "0", content: image.layers[0]}, {name: "1", content: image.layers[1]}}
	for says, saved := range map[string][]savedImage{
		"lists 513 images with 0 names; the limit is 512 of each": slices.Repeat([]savedImage{item}, maxNamed+1),
		"lists 1 images with 513 names; the limit is 512 of each": {{Config: item.Config, Layers: item.Layers, RepoTags: slices.Repeat([]string{"a:1"}, maxNamed+1)}},
	} {
		store := openStore(t, t.TempDir(), Limits{})
		_, err := store.Import(t.Context(), bytes.NewReader(tarOf(t, append(slices.Clone(layers), entry{name: "manifest.json", content: jsonOf(t, saved)})...)), "web:1")
		wantSays(t, err, errdefs.ErrResourceExhausted, says)
	}
}
