package images

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// answer is what the store's handler says.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func ask(t *testing.T, store *Store, method, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	request := httptest.NewRequest(method, path, body)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	store.Handler().ServeHTTP(w, request)
	return answer{w.Code, w.Header(), w.Body.Bytes()}
}

func (a answer) want(t *testing.T, status int, says string) answer {
	t.Helper()
	if a.status != status || !strings.Contains(string(a.body), says) {
		t.Fatalf("it answers %d %s; want %d with %q", a.status, a.body, status, says)
	}
	return a
}

func (a answer) offset(t *testing.T, want int) answer {
	t.Helper()
	if got := a.header.Get(offsetHeader); got != strconv.Itoa(want) {
		t.Errorf("the offset is %q, want %d", got, want)
	}
	return a
}

func begin(t *testing.T, store *Store) (path string) {
	t.Helper()
	started := ask(t, store, "POST", "/v1/uploads", nil).want(t, 201, `"offset":0`)
	var said struct{ ID string }
	if err := json.Unmarshal(started.body, &said); err != nil || said.ID == "" || started.header.Get("Location") != "/v1/uploads/"+said.ID {
		t.Fatalf("it answers %s, %v", started.body, started.header)
	}
	return "/v1/uploads/" + said.ID
}

func TestUploadInPieces(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	content := tarOf(t, webImage(t).oci(t, "web:1.0")...)
	path := begin(t, store)

	ask(t, store, "PATCH", path, bytes.NewReader(content[:1000])).want(t, 400, "Upload-Offset")
	ask(t, store, "PATCH", path, bytes.NewReader(content[:1000]), offsetHeader, "0").want(t, 200, `"offset":1000`).offset(t, 1000)
	ask(t, store, "PATCH", path, bytes.NewReader(content[:1000]), offsetHeader, "0").want(t, 409, "continues at 1000, not at 0").offset(t, 1000)

	// A body that breaks off leaves what arrived.
	cut := io.MultiReader(bytes.NewReader(content[1000:1500]), readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }))
	ask(t, store, "PATCH", path, cut, offsetHeader, "1000").want(t, 409, "ended early, after 1500 bytes")
	ask(t, store, "HEAD", path, nil).want(t, 200, "").offset(t, 1500)
	ask(t, store, "GET", path, nil).want(t, 200, `"offset":1500`)
	ask(t, store, "PATCH", path, bytes.NewReader(content[1500:]), offsetHeader, "1500").want(t, 200, "")

	ask(t, store, "POST", path+"/import?name=A+B", nil).want(t, 400, "is not an image name")
	var first, again apiv1.Image
	if err := protojson.Unmarshal(ask(t, store, "POST", path+"/import?name=team/web:2", nil).want(t, 200, "sha256:").body, &first); err != nil || first.GetName() != "team/web:2" {
		t.Errorf("imported %v, %v", &first, err)
	}
	// A client that lost the answer asks again.
	if err := protojson.Unmarshal(ask(t, store, "POST", path+"/import?name=team/web:2", nil).want(t, 200, "").body, &again); err != nil || again.String() != first.String() {
		t.Errorf("imported %v, then %v, %v", &first, &again, err)
	}
	ask(t, store, "PATCH", path, strings.NewReader("more"), offsetHeader, strconv.Itoa(len(content))).want(t, 409, "was already imported")
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestUploadErrors(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{ArchiveBytes: 2000})
	for _, c := range []struct{ method, path string }{
		{"GET", "/v1/uploads/none"}, {"PATCH", "/v1/uploads/none"}, {"DELETE", "/v1/uploads/none"}, {"POST", "/v1/uploads/none/import"},
	} {
		ask(t, store, c.method, c.path, nil, offsetHeader, "0").want(t, 404, `"code":5`)
	}
	path := begin(t, store)
	ask(t, store, "DELETE", path, nil).want(t, 204, "")
	ask(t, store, "GET", path, nil).want(t, 404, "there is no upload with the id")

	path = begin(t, store)
	ask(t, store, "PATCH", path, bytes.NewReader(make([]byte, 1500)), offsetHeader, "0").want(t, 200, "")
	ask(t, store, "PATCH", path, bytes.NewReader(make([]byte, 501)), offsetHeader, "1500").want(t, 413, "larger than 2KiB")
	ask(t, store, "GET", path, nil).want(t, 404, "")

	path = begin(t, store)
	ask(t, store, "POST", path+"/import", nil).want(t, 400, `{"code":3,"message":"the archive is empty"}`)
	ask(t, store, "GET", path, nil).want(t, 404, "")
	if left := incomingFiles(t, store); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestASecondConnectionTakesOver has a client come back while its old connection hangs, as one does that was cut
// without a word.
func TestASecondConnectionTakesOver(t *testing.T) {
	store := openStore(t, t.TempDir(), Limits{})
	server := httptest.NewServer(store.Handler())
	defer server.Close()
	path := server.URL + begin(t, store)
	send := func(offset string, body io.Reader) (*http.Response, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, path, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(offsetHeader, offset)
		return server.Client().Do(request)
	}
	hanging, writer := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if response, err := send("0", hanging); err == nil {
			_ = response.Body.Close()
		}
	}()
	if _, err := writer.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	for { // Until the store has them.
		response, err := server.Client().Get(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.Header.Get(offsetHeader) == "5" {
			break
		}
	}
	response, err := send("5", strings.NewReader("6789"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get(offsetHeader) != "9" {
		t.Errorf("it answers %s, %v", response.Status, response.Header)
	}
	_ = writer.Close()
	<-ended
}
