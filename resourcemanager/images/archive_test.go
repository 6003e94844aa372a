package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
)

// entry is one of a tar that a test makes.
type entry struct {
	name    string
	content []byte
	// link makes it a symbolic link, hardLink a hard one.
	link, hardLink string
	mode           byte
	// major and minor are a device's numbers, xattrs its extended attributes.
	major, minor int64
	xattrs       map[string]string
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(e.content)), Devmajor: e.major, Devminor: e.minor}
		for name, value := range e.xattrs {
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords[xattrRecord+name] = value
		}
		switch {
		case e.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
		case e.hardLink != "":
			header.Typeflag, header.Linkname = tar.TypeLink, e.hardLink
		case e.mode != 0:
			header.Typeflag = e.mode
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func jsonOf(t testing.TB, value any) []byte {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// testImage is an image that a test makes: its config, and its layers as a registry would hold them.
type testImage struct {
	architecture string
	layers       [][]byte
	// diffIDs are worked out from the layers unless they are given.
	diffIDs []digest.Digest
	command []string
	// set changes the settings.
	set func(*ocispec.ImageConfig)
}

// webImage is a sound image of two layers.
func webImage(t testing.TB) testImage {
	return testImage{
		layers: [][]byte{
			tarOf(t, entry{name: "bin/", mode: tar.TypeDir}, entry{name: "bin/web", content: []byte("a program")}),
			tarOf(t, entry{name: "etc/web.conf", content: []byte("a setting")}, entry{name: "etc/link", link: "/bin/web"}),
		},
		command: []string{"/bin/web"},
	}
}

func (i testImage) config(t testing.TB) []byte {
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: i.architecture, OS: "linux"}}
	setDefault(&config.Architecture, "amd64")
	config.Config.Entrypoint = i.command
	config.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	if i.set != nil {
		i.set(&config.Config)
	}
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = i.diffIDs
	if i.diffIDs == nil {
		for _, layer := range i.layers {
			config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(expanded(t, layer)))
		}
	}
	return jsonOf(t, config)
}

func expanded(t testing.TB, layer []byte) []byte {
	if !bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
		return layer
	}
	r, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func (i testImage) manifest(t testing.TB) []byte {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: distribution.MediaTypeOCIManifest}
	m.Config = describeBlob(ocispec.MediaTypeImageConfig, i.config(t))
	for _, layer := range i.layers {
		mediaType := ocispec.MediaTypeImageLayer
		if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
			mediaType = ocispec.MediaTypeImageLayerGzip
		}
		m.Layers = append(m.Layers, describeBlob(mediaType, layer))
	}
	return jsonOf(t, m)
}

func describeBlob(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func blobEntry(content []byte) entry {
	return entry{name: "blobs/sha256/" + digest.FromBytes(content).Encoded(), content: content}
}

// blobs are the entries of the image's own blobs.
func (i testImage) blobs(t testing.TB) []entry {
	entries := []entry{blobEntry(i.manifest(t)), blobEntry(i.config(t))}
	for _, layer := range i.layers {
		if e := blobEntry(layer); !slices.ContainsFunc(entries, func(other entry) bool { return other.name == e.name }) {
			entries = append(entries, e)
		}
	}
	return entries
}

// oci is the image as an OCI archive, named by the annotation that containerd uses.
func (i testImage) oci(t testing.TB, name string) []entry {
	top := describeBlob(distribution.MediaTypeOCIManifest, i.manifest(t))
	if name != "" {
		top.Annotations = map[string]string{containerImageName: "hub.example.test/library/" + name, ocispec.AnnotationRefName: "1.0"}
	}
	return append([]entry{
		{name: "oci-layout", content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", content: indexOf(t, top)},
	}, i.blobs(t)...)
}

func indexOf(t testing.TB, manifests ...ocispec.Descriptor) []byte {
	return jsonOf(t, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// saved is the image as `docker save` wrote it before it wrote OCI layouts: a folder a layer, where a layer that
// stands twice is a symbolic link.
func (i testImage) saved(t testing.TB, names ...string) []entry {
	config := i.config(t)
	item := savedImage{Config: digest.FromBytes(config).Encoded() + ".json", RepoTags: names}
	entries := []entry{{name: item.Config, content: config}}
	first := map[digest.Digest]string{}
	for n, layer := range i.layers {
		dir := string(rune('a'+n)) + "0123"
		item.Layers = append(item.Layers, dir+"/layer.tar")
		e := entry{name: dir + "/layer.tar", content: layer}
		if other, ok := first[digest.FromBytes(layer)]; ok {
			e = entry{name: e.name, link: "../" + other}
		} else {
			first[digest.FromBytes(layer)] = e.name
		}
		entries = append(entries, entry{name: dir + "/", mode: tar.TypeDir}, entry{name: dir + "/VERSION", content: []byte("1.0")}, e)
	}
	return append(entries, entry{name: "manifest.json", content: jsonOf(t, []savedImage{item})})
}

// FuzzArchive reads foreign bytes as an archive: what is found in it must be whole, and the rest refused by class.
func FuzzArchive(f *testing.F) {
	image := webImage(f)
	f.Add(tarOf(f, image.saved(f, "web:1.0")...))
	f.Add(tarOf(f, image.oci(f, "web:1.0")...))
	f.Add(gzipped(f, tarOf(f, image.oci(f, "web:1.0")...)))
	f.Add(tarOf(f, entry{name: "../x", content: []byte("y")}))
	limits := Limits{ExpandedBytes: 1 << 20, Entries: 64, Architecture: "amd64"}
	limits.setDefaults()
	f.Fuzz(func(t *testing.T, content []byte) {
		unpacked, err := unpack(t.Context(), bytes.NewReader(content), t.TempDir(), limits, io.Discard)
		if err != nil {
			checkClass(t, err)
			return
		}
		found, err := unpacked.image(t.Context(), "fuzz:1")
		if err != nil {
			checkClass(t, err)
			return
		}
		if len(found.parts) != 1+len(found.manifest.Layers) || found.manifest.Config.Digest != found.parts[0].digest {
			t.Errorf("found %+v, which is not whole", found)
		}
		for _, part := range found.parts {
			content, err := os.ReadFile(part.path)
			if err != nil || digest.FromBytes(content) != part.digest {
				t.Errorf("%s holds something else, %v", part.digest, err)
			}
		}
	})
}
