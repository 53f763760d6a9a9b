import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.concurrent.CountDownLatch;

public class Hello {
    public static void main(String[] args) throws Exception {
        var latch = new CountDownLatch(8);
        for (int i = 0; i < 8; i++) new Thread(latch::countDown).start();
        latch.await();
        Path directory = Files.createTempDirectory("hello");
        for (String name : new String[] {"a", "b", "c"}) {
            Path file = Files.writeString(directory.resolve(name), name);
            Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw-r-----"));
        }
        long files;
        try (var list = Files.list(directory)) {
            files = list.filter(path -> path.toFile().length() == 1).count();
        }
        for (String name : new String[] {"a", "b", "c"}) Files.delete(directory.resolve(name));
        Files.delete(directory);
        var child = new ProcessBuilder("id", "-u").start();
        String said = new String(child.getInputStream().readAllBytes()).trim();
        System.out.printf("hello from 8 threads as %s: %d files, child says %s%n", System.getProperty("user.name"), files, said);
    }
}
