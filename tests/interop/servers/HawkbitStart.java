package fieldrelay.peer;

import java.io.File;
import org.eclipse.hawkbit.autoconfigure.security.EnableHawkbitManagedSecurityConfiguration;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.context.WebServerPortFileWriter;

/** hawkBit from its published parts; writes the port that it was given into the file of its first argument. */
@EnableHawkbitManagedSecurityConfiguration
@SpringBootApplication
public class HawkbitStart {
    public static void main(String[] arguments) {
        SpringApplication application = new SpringApplication(HawkbitStart.class);
        application.addListeners(new WebServerPortFileWriter(new File(arguments[0])));
        application.run(arguments);
    }
}
