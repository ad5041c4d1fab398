// A registry with a native referrers API, in memory: the server of cuelabs.dev/go/oci/ociregistry, which answers
// `OCI-Subject`, filters by artifact type, and keeps no fallback tags.
//
//	registry --address 127.0.0.1:5000
//
// It ends with the first signal.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: ociserver.New(ocimem.New(), nil), ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintln(os.Stderr, "error:", server.Serve(listener))
	os.Exit(1)
}
