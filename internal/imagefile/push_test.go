package imagefile

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type zoneFunc func(*http.Request) (string, error)

func (f zoneFunc) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func TestAnUploadIsPickedUpWhereTheZoneFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const content = "an image"
		var arrived strings.Builder
		silent := true
		zone := zoneFunc(func(r *http.Request) (string, error) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/import"):
				return `{"name": "web:1"}`, nil
			case r.Method == http.MethodPatch && silent:
				silent = false
				arrived.WriteString(content[:3])
				<-r.Context().Done()
				return "", r.Context().Err()
			case r.Method == http.MethodPatch:
				if _, err := io.Copy(&arrived, r.Body); err != nil {
					return "", err
				}
			}
			return fmt.Sprintf(`{"id": "1", "offset": %d}`, arrived.Len()), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		image, err := Push(ctx, PushOptions{
			Server: "zone:7070", Client: &http.Client{Transport: zone}, Content: strings.NewReader(content),
		})
		if err != nil || image.GetName() != "web:1" || arrived.String() != content {
			t.Errorf("the zone has %q and answered %v, %v", arrived.String(), image, err)
		}
	})
}
