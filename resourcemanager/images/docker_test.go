package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	dockerimage "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/mammoth-os/mammoth/internal/testenv"
)

// engine is the machine's Docker, and a store that it can push to and pull from.
type engine struct {
	t     *testing.T
	api   *client.Client
	store *Store
	// registry is the store's host and port.
	registry string
	created  []string
}

func newEngine(t *testing.T) *engine {
	testenv.Need(t, "docker")
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+testenv.DockerSocket()), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	store, err := Open(t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	server := httptest.NewServer(store.Handler())
	t.Cleanup(server.Close)
	e := &engine{t: t, api: api, store: store, registry: server.Listener.Addr().(*net.TCPAddr).AddrPort().String()}
	t.Cleanup(e.removeAll)
	return e
}

// build makes an image of one file that the engine has under that name.
func (e *engine) build(name, file string) {
	e.t.Helper()
	source := dockerimage.ImportSource{Source: bytes.NewReader(tarOf(e.t, entry{name: "web", content: []byte(file)})), SourceName: "-"}
	answer, err := e.api.ImageImport(e.t.Context(), source, name, dockerimage.ImportOptions{Changes: []string{`ENTRYPOINT ["/web"]`, "EXPOSE 8080"}})
	e.drain(answer, err)
	e.created = append(e.created, name)
}

// drain reads one of the engine's streams and fails on the error in it.
func (e *engine) drain(stream io.ReadCloser, err error) string {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
	defer stream.Close()
	var all strings.Builder
	for decoder := json.NewDecoder(stream); ; {
		var line struct{ Status, Error string }
		if err := decoder.Decode(&line); err == io.EOF {
			return all.String()
		} else if err != nil {
			e.t.Fatal(err)
		}
		if line.Error != "" {
			e.t.Fatal(line.Error)
		}
		fmt.Fprintln(&all, line.Status)
	}
}

func (e *engine) tag(from, to string) {
	e.t.Helper()
	if err := e.api.ImageTag(e.t.Context(), from, to); err != nil {
		e.t.Fatal(err)
	}
	e.created = append(e.created, to)
}

func (e *engine) push(name string) string {
	e.t.Helper()
	return e.drain(e.api.ImagePush(e.t.Context(), name, dockerimage.PushOptions{RegistryAuth: "e30="}))
}

func (e *engine) pull(name string) {
	e.t.Helper()
	e.drain(e.api.ImagePull(e.t.Context(), name, dockerimage.PullOptions{}))
	e.created = append(e.created, name)
}

func (e *engine) id(name string) string {
	e.t.Helper()
	found, err := e.api.ImageInspect(e.t.Context(), name)
	if err != nil {
		e.t.Fatal(err)
	}
	return found.ID
}

func (e *engine) removeAll() {
	for _, name := range e.created {
		// Some are gone already.
		_, _ = e.api.ImageRemove(context.Background(), name, dockerimage.RemoveOptions{Force: true, PruneChildren: true})
	}
	e.created = nil
}

func TestDockerPushesAndPulls(t *testing.T) {
	e := newEngine(t)
	local := "mammoth-test-images/push:1"
	e.build(local, "a program that "+t.Name()+" pushes")
	id := e.id(local)
	remote := e.registry + "/team/web:1.0"
	e.tag(local, remote)
	e.push(remote)

	sum, config, err := e.store.Resolve(t.Context(), remote)
	if err != nil {
		t.Fatal(err)
	}
	if !config.HasCommand() || config.Entrypoint[0] != "/web" {
		t.Errorf("config %+v", config)
	}
	// Under another name the layers are there already, and mounted.
	second := e.registry + "/other:2"
	e.tag(local, second)
	if said := e.push(second); !strings.Contains(said, "Mounted from") && !strings.Contains(said, "Layer already exists") {
		t.Errorf("the second push says %q", said)
	}
	e.removeAll()
	e.pull(e.registry + "/team/web@" + sum)
	if got := e.id(e.registry + "/team/web@" + sum); got != id {
		t.Errorf("pulled %s, pushed %s", got, id)
	}
	e.pull(remote)

	freed, err := e.store.Remove(t.Context(), "team/web:1.0")
	if err != nil || freed != 0 {
		t.Errorf("freed %d bytes, %v; the other name still needs them all", freed, err)
	}
	freed, err = e.store.Remove(t.Context(), "other:2")
	if err != nil || freed == 0 {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	if size := stored(t, e.store); size != 0 {
		t.Errorf("%d bytes are left", size)
	}
}

func TestImportedArchivesArePulled(t *testing.T) {
	e := newEngine(t)
	local := "mammoth-test-images/save:1"
	e.build(local, "a program that "+t.Name()+" saves")
	id := e.id(local)
	saved, err := e.api.ImageSave(t.Context(), []string{local})
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(saved)
	_ = saved.Close()
	if err != nil {
		t.Fatal(err)
	}
	e.removeAll()
	for _, c := range []struct {
		name    string
		content []byte
	}{{"saved:1", content}, {"zipped:1", gzipped(t, content)}} {
		if _, err := e.store.Import(t.Context(), bytes.NewReader(c.content), c.name); err != nil {
			t.Fatal(err)
		}
		e.pull(e.registry + "/" + c.name)
		if got := e.id(e.registry + "/" + c.name); got != id {
			t.Errorf("pulled %s, saved %s", got, id)
		}
		e.removeAll()
	}
	// The archive's own name.
	if image, err := e.store.Import(t.Context(), bytes.NewReader(content), ""); err != nil || image.GetName() != local {
		t.Errorf("imported %v, %v; want %s", image, err, local)
	}
	for name, made := range map[string][]byte{
		"oci-plain:1": tarOf(t, hostImage(t, false).oci(t, "x:1")...),
		"oci-gzip:1":  tarOf(t, hostImage(t, true).oci(t, "x:1")...),
		"legacy:1":    tarOf(t, hostImage(t, false).saved(t, "x:1")...),
		"legacy-gz:1": tarOf(t, hostImage(t, true).saved(t, "x:1")...),
	} {
		if _, err := e.store.Import(t.Context(), bytes.NewReader(made), name); err != nil {
			t.Fatal(err)
		}
		e.pull(e.registry + "/" + name)
		e.removeAll()
	}
}

// hostImage is webImage for the machine's architecture.
func hostImage(t *testing.T, compressed bool) testImage {
	image := webImage(t)
	setDefaultArchitecture(&image)
	if compressed {
		for i := range image.layers {
			image.layers[i] = gzipped(t, image.layers[i])
		}
	}
	return image
}

func setDefaultArchitecture(image *testImage) {
	var limits Limits
	limits.setDefaults()
	image.architecture = limits.Architecture
}
